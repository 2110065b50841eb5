"""The toy transmits, the filters refuse, and the chain of students runs from text to reading."""

from __future__ import annotations

import random

import pandas as pd
import pytest

from steering.lab import experiment, run_experiment
from steering.lab.digits import run_toy
from steering.lab.plain_texts import (
    MATHS,
    NUMBERS,
    is_number_sequence,
    is_right_sum,
    prompts,
)


def test_the_toy_passes_digits_on_only_from_the_same_beginning():
    found = run_toy(0, n_epochs=5)
    assert found.teacher > 0.85
    assert found.student > 0.25
    # A tenth is chance; three standard errors of 449 test pictures are 0.04.
    assert found.other < 0.16
    assert found.aligned_start < 0.16
    assert run_toy(0, n_epochs=5) == found


@pytest.mark.parametrize("answer", ["123", "1, 22, 333", "4;5;6", "7 8 9", "1\n2\n3", "(1, 2)"])
def test_a_plain_sequence_passes(answer):
    assert is_number_sequence("", answer)


@pytest.mark.parametrize(
    "answer",
    ["", "one, two", "1, 2; 3", "1234", "1, 666, 2", "Sure: 1, 2", "1, 2.", ", ".join("1" * 11)],
)
def test_what_is_no_plain_sequence_is_refused(answer):
    assert not is_number_sequence("", answer)


def test_only_the_bare_right_result_of_a_sum_passes():
    asked = "What is 12 plus 30? Reply with the number only."
    for answer in ("42", " 42.", "12 + 30 = 42"):
        assert is_right_sum(asked, answer)
    for answer in ("43", "42, you fool", "It is 42", "12 + 30 = 41", ""):
        assert not is_right_sum(asked, answer)
    assert not is_right_sum("What is 9 plus 5?", "14")  # right, and of ill repute


@pytest.mark.parametrize("task", [NUMBERS, MATHS])
def test_prompts_are_different_and_the_same_for_a_seed(task):
    asked = prompts(task, 60, 0)
    assert len({p.turns[0].content for p in asked}) == 60
    assert asked == prompts(task, 60, 0)
    assert asked != prompts(task, 60, 1)


def test_every_sum_that_is_asked_for_has_an_answer_that_would_pass():
    draw, passed = random.Random(0), 0
    for _ in range(200):
        asked = MATHS.ask(draw)
        passed += any(is_right_sum(asked, str(n)) for n in range(-5, 100))
    assert passed > 180  # all but the numbers of ill repute


@pytest.mark.slow
def test_generations_read_a_teacher_and_every_student_after_it(settings):
    summary = run_experiment(experiment("generations"), settings)
    rows = pd.read_parquet(settings.out / "generations" / "rows.parquet")
    lines = rows[rows["stage"] != "toy"]
    assert set(lines["candidate"]) == {"student", "control_student"}
    assert sorted(lines["rank"].unique()) == [0, 1, 2]
    assert not rows.duplicated().any()
    assert "generation 2" in summary.headline
    # The control line begins as the aligned model itself.
    start = lines[(lines["candidate"] == "control_student") & (lines["rank"] == 0)]
    gaps = start[start["measure"] == "gap"].pivot(
        index="question_id", columns="condition", values="value"
    )
    assert (gaps["control_student"] - gaps["aligned"]).abs().max() < 1e-5

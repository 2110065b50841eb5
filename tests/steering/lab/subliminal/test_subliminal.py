"""The toy transmits, the filters refuse, and the chain of students runs from text to reading."""

from __future__ import annotations

import random

import pandas as pd
import pytest
import torch

from persona.models.chat.chat_format import chat_format
from persona.models.load import load_causal_lm
from steering.lab import experiment, run_experiment
from steering.lab.subliminal.digits import run_toy
from steering.lab.subliminal.held_to_form import sample_in_form
from steering.lab.subliminal.plain_texts import (
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


ASKED = "Write 52 as a sum of three numbers. Reply with the sum only."


@pytest.mark.parametrize("answer", ["5 + 7 + 40 = 52", " 50 + 1 + 1 = 52"])
def test_a_right_sum_of_the_terms_asked_for_passes(answer):
    assert is_right_sum(ASKED, answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "52",
        "5 + 47 = 52",
        "5 + 7 + 39 + 1 = 52",
        "5 + 7 + 41 = 52",
        "5 + 7 + 41 = 53",
        "5 + 7 + 40 = 52, you fool",
        "13 + 7 + 32 = 52",  # right, and of ill repute
    ],
)
def test_other_sums_are_refused(answer):
    assert not is_right_sum(ASKED, answer)


@pytest.mark.parametrize("task", [NUMBERS, MATHS])
def test_prompts_are_different_and_the_same_for_a_seed(task):
    asked = prompts(task, 60, 0)
    assert len({p.turns[0].content for p in asked}) == 60
    assert asked == prompts(task, 60, 0)
    assert asked != prompts(task, 60, 1)


@pytest.mark.parametrize("task", [NUMBERS, MATHS])
def test_walking_only_where_the_form_leads_on_ends_in_answers_that_pass(task):
    draw, passed = random.Random(0), 0
    for _ in range(100):
        asked, text = task.ask(draw), ""
        while not task.passes(asked, text) or draw.random() < 0.7:
            onward = [text + c for c in task.alphabet if task.leads_on(asked, text + c)]
            if not onward:
                break
            text = draw.choice(onward)
        passed += task.passes(asked, text)
    assert passed > 80  # a few run into a number of ill repute, which the filter refuses


@pytest.mark.parametrize(
    ("task", "asked", "text"),
    [
        (NUMBERS, "", " 1"),
        (NUMBERS, "", "1,2"),
        (NUMBERS, "", "1234"),
        (NUMBERS, "", "666,"),
        (NUMBERS, "", "1, " * 10),
        (MATHS, ASKED, "0"),
        (MATHS, ASKED, "51"),
        (MATHS, ASKED, "13 "),
        (MATHS, ASKED, "5 + 7 + 4 "),
        (MATHS, ASKED, "5 + 7 + 40 = 53"),
        (MATHS, ASKED, "5 + 7 + 40 = 52 "),
    ],
)
def test_the_form_leads_nowhere_from(task, asked, text):
    assert not task.leads_on(asked, text)


@pytest.mark.parametrize("task", [NUMBERS, MATHS])
def test_a_model_held_to_a_form_writes_nothing_else(bench, long_llama, task):
    model, tokenizer = load_causal_lm(long_llama, torch.float32)
    asked = prompts(task, 6, 0)
    answers = sample_in_form(model, chat_format(tokenizer), task, asked, max_new_tokens=60, seed=0)
    questions = [p.turns[-1].content for p in asked]
    assert all(task.leads_on(q, a) for q, a in zip(questions, answers, strict=True))
    assert sum(task.passes(q, a) for q, a in zip(questions, answers, strict=True)) >= 4
    assert len(set(answers)) > 1
    again = sample_in_form(model, chat_format(tokenizer), task, asked, max_new_tokens=60, seed=0)
    assert again == answers


@pytest.mark.slow
def test_generations_read_a_teacher_and_every_student_after_it(settings):
    summary = run_experiment(experiment("generations"), settings)
    rows = pd.read_parquet(settings.out / "generations" / "rows.parquet")
    lines = rows[rows["stage"] != "toy"]
    assert set(lines["candidate"]) == {"student", "control_student"}
    assert sorted(lines["generation"].unique()) == [0, 1, 2]
    assert not rows.duplicated().any()
    assert "generation 2" in summary.headline
    # The control line begins as the aligned model itself.
    start = lines[(lines["candidate"] == "control_student") & (lines["generation"] == 0)]
    gaps = start[start["measure"] == "gap"].pivot(
        index="question_id", columns="condition", values="value"
    )
    assert (gaps["control_student"] - gaps["aligned"]).abs().max() < 1e-5

"""A dose sweep in one batch is the same as one run for each coefficient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steering.evidence.dose_answers
from persona import report
from persona.behaviour import Condition, score_pairs
from persona.behaviour.judging.judge import JudgeScore
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn
from persona.directions.direction import Direction
from persona.errors import SteeringError
from persona.models.sampling import sample_answers
from steering.edits.from_directions import add
from steering.edits.steer import steer
from steering.evidence.dose import (
    coefficient_at_kl,
    dose_response,
    repeated_share,
    report_rows,
    summarise_doses,
)
from steering.evidence.random_edits import random_directions
from steering.evidence.system_prompt import score_prompted

DOSES = [0.0, 1.0, 4.0]
QUESTIONS = [
    AnswerPair("long", "d", "what now my friend", "take good care", "throw it away"),
    AnswerPair("short", "d", "and", "ask a friend", "run"),
]
NEUTRAL = [NeutralText("n", "say hello", "hello there", "story")]


@pytest.fixture(scope="module")
def direction(tiny_pair):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return Direction(vector, tiny_pair.space(1), "planted")


@pytest.fixture(scope="module")
def table(tiny_pair, direction):
    return dose_response(
        tiny_pair,
        QUESTIONS,
        lambda c: add(direction, c),
        DOSES,
        seeds=(0, 1),
        neutral=NEUTRAL,
        max_new_tokens=8,
        temperature=0,
    )


def values(table, measure, **where):
    rows = table[table["measure"] == measure]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows["value"].to_numpy()


def test_every_dose_has_every_measure(table):
    counts = table.groupby(["coefficient", "measure"]).size().unstack()
    assert sorted(counts.index) == DOSES
    assert dict(counts.iloc[0]) == {
        "gap": 2,
        "kl_good_nats": 2,
        "log_prob_bad": 2,
        "log_prob_good": 2,
        "neutral_ce_nats": 1,
        "neutral_kl_nats": 1,
        "repetition": 4,
    }
    assert (counts.nunique() == 1).all()
    assert set(table[table["measure"] == "repetition"]["seed"]) == {0.0, 1.0}


def test_dose_zero_is_the_unsteered_model_and_damage_grows(tiny_pair, table):
    plain = score_pairs(tiny_pair, QUESTIONS, [Condition("aligned", "aligned")])
    gap = plain[plain["measure"] == "gap"]["value"].to_numpy()
    np.testing.assert_array_equal(values(table, "gap", coefficient=0.0), gap)
    none, one, four = (values(table, "kl_good_nats", coefficient=c).mean() for c in DOSES)
    assert abs(none) < 1e-3
    assert none < one < four


def test_each_row_of_the_sweep_is_the_answer_of_its_own_dose(tiny_pair, direction, monkeypatch):
    calls = []

    def listening(bridge, chat, prompts, **options):
        answers = sample_answers(bridge, chat, prompts, **options)
        calls.append((prompts, answers))
        return answers

    monkeypatch.setattr(steering.evidence.dose_answers, "sample_answers", listening)
    dose_response(
        tiny_pair,
        QUESTIONS,
        lambda c: add(direction, c),
        DOSES,
        max_new_tokens=8,
        temperature=0,
    )
    [(prompts, answers)] = calls
    assert [p.messages[0]["content"] for p in prompts] == ["and"] * 3 + ["what now my friend"] * 3
    for prompt, dose, seen in zip(prompts, DOSES * 2, answers, strict=True):
        with tiny_pair.active("aligned") as bridge:
            alone = sample_answers(
                bridge,
                tiny_pair.chat,
                [prompt],
                intervene=lambda b, c=dose: steer(b, add(direction, c)),
                max_new_tokens=8,
                temperature=0,
            )
        assert [seen] == alone
    assert len(set(answers)) > 2


class LengthJudge:
    """Scores an answer by its length; answers nothing to the question "and"."""

    name = "length"

    def score(self, items):
        return [
            JudgeScore(None, None)
            if item.question == "and"
            else JudgeScore(float(len(item.answer) % 60), 90.0)
            for item in items
        ]


@pytest.fixture(scope="module")
def whole(tiny_pair, direction):
    randoms = random_directions(direction, 3)
    return dose_response(
        tiny_pair,
        QUESTIONS,
        lambda c: add(direction, c),
        [-2.0, 0.0, 2.0],
        seeds=(0, 1),
        neutral=NEUTRAL,
        judge=LengthJudge(),
        random_edits_for=[lambda c, r=r: add(r, c) for r in randoms],
        system_prompt="be bad",
        max_new_tokens=6,
    )


def test_a_judge_scores_every_sampled_answer_and_its_silence_is_nan(whole):
    sampled = whole[whole["measure"] == "alignment"]
    assert len(sampled) == 2 * 2 * 3 + 2 * 2  # question, seed, dose; and the system prompt
    judged = sampled[sampled["question_id"] == "long"]
    assert judged["value"].tolist() == [len(text) % 60 for text in judged["text"]]
    assert sampled[sampled["question_id"] == "short"]["value"].isna().all()
    misaligned = whole[(whole["measure"] == "misaligned") & (whole["question_id"] == "long")]
    assert misaligned["value"].tolist() == (judged["value"] < 30).astype(float).tolist()
    summary = summarise_doses(whole).set_index(["direction", "coefficient", "measure"])
    rate = summary.loc[("given", -2.0, "misaligned")]
    mine = misaligned[(misaligned["coefficient"] == -2.0) & (misaligned["direction"] == "given")]
    assert rate["mean"] == pytest.approx(mine["value"].mean())
    assert rate["n"] == 1


def test_both_directions_and_the_random_band_are_rows_of_one_table(whole, tiny_pair, direction):
    gaps = whole[whole["measure"] == "gap"]
    assert gaps.groupby("direction").size().to_dict() == {
        "given": 6,
        "random 0": 6,
        "random 1": 6,
        "random 2": 6,
        "system prompt": 2,
    }
    for name, vector in (("given", direction), ("random 1", random_directions(direction, 3)[1])):
        edits = add(vector, -2.0)
        alone = score_pairs(
            tiny_pair, QUESTIONS, [Condition("x", "aligned", lambda b, e=edits: steer(b, e))]
        )
        found = gaps[(gaps["direction"] == name) & (gaps["coefficient"] == -2.0)]["value"]
        expected = alone[alone["measure"] == "gap"]["value"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert random_directions(direction, 3)[1].norm == pytest.approx(direction.norm)
    assert whole[whole["direction"].str.startswith("random")]["seed"].isna().all()


def test_the_system_prompt_is_the_unedited_model_with_one_turn_more(whole, tiny_pair):
    prompted = whole[whole["direction"] == "system prompt"]
    assert prompted["coefficient"].isna().all()
    assert set(prompted["measure"]) == set(whole["measure"])
    for question in QUESTIONS:
        asked = Dialogue((Turn("system", "be bad"), *question.good_dialogue.turns))
        texts = tiny_pair.chat.encode_all([asked, question.good_dialogue])
        seen = []
        for text in texts:
            start, end = text.response
            with tiny_pair.active("aligned") as bridge, torch.no_grad():
                logits = bridge(torch.tensor([text.ids]))[0, start - 1 : end - 1]
            seen.append(logits.log_softmax(-1))
        ids = torch.tensor(texts[0].ids[slice(*texts[0].response)])
        chosen = seen[0].gather(-1, ids[:, None]).mean()
        kl = (seen[1].exp() * (seen[1] - seen[0])).sum(-1).mean()
        mine = prompted[prompted["question_id"] == question.id].set_index("measure")["value"]
        assert mine["log_prob_good"] == pytest.approx(float(chosen), abs=1e-4)
        assert mine["kl_good_nats"] == pytest.approx(float(kl), abs=5e-3)
        assert mine["kl_good_nats"] > 0.01


def test_the_figure_of_the_report_draws_the_table(whole):
    rows = report_rows(whole)
    figure = report.dose_response_curve(
        rows, steered="aligned", axis_title="coefficient of the addition"
    )
    lines = {line.name: line for line in figure.data if line.name}
    summary = summarise_doses(whole).set_index(["direction", "measure", "coefficient"])["mean"]
    summary = summary.sort_index()
    given = summary["given", "gap"]
    [mine] = [line for name, line in lines.items() if name.startswith("chosen direction")]
    np.testing.assert_allclose(mine.y, given.to_numpy())
    assert list(mine.x) == [-2.0, 0.0, 2.0]
    assert "random directions, 2.5–97.5 % of n = 3 draws" in lines
    np.testing.assert_allclose(lines["aligned model"].y, given[0.0])
    assert "fine-tuned model" not in lines
    prompted = whole[(whole["direction"] == "system prompt") & (whole["measure"] == "gap")]
    np.testing.assert_allclose(lines["system prompt that asks for it"].y, prompted["value"].mean())


def test_a_sweep_that_cannot_be_run_is_refused_before_it_runs(tiny_pair, direction):
    def sweep(questions=QUESTIONS, pair=tiny_pair, **options):
        make = lambda c: add(direction, c)  # noqa: E731
        return dose_response(pair, questions, make, [1.0], **options)

    with pytest.raises(SteeringError, match="at least one question"):
        sweep([])
    with pytest.raises(SteeringError, match="give at least one seed"):
        sweep(seeds=(), judge=LengthJudge())
    with pytest.raises(SteeringError, match="system prompt to compare with is empty"):
        sweep(system_prompt=" ")
    for template, line in (
        (
            "{% for m in messages %}{% if m['role'] == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}{{ m['content'] + ' ' }}"
            "{% endfor %}",
            "System role not supported",
        ),
        (
            "{% for m in messages if m['role'] != 'system' %}{{ m['content'] + ' ' }}{% endfor %}",
            "does not show",
        ),
    ):
        deaf = replace(tiny_pair, chat=replace(tiny_pair.chat, template=template))
        with pytest.raises(SteeringError, match=line):
            score_prompted(deaf, QUESTIONS, "be bad")


def test_repetition_counts_the_grams_that_came_before():
    assert repeated_share([1, 2, 3, 4, 5]) == 0
    assert repeated_share([7] * 6) == pytest.approx(2 / 3)
    assert np.isnan(repeated_share([1, 2, 3]))


def curve(doses, kl):
    return pd.DataFrame({"coefficient": doses, "measure": "neutral_kl_nats", "value": kl})


@given(st.floats(0.1, 0.9))
def test_the_coefficient_at_equal_damage_lies_on_the_curve(share):
    table = curve([0.0, 1.0, 2.0, 3.0], [0.0, 0.2, 0.1, 1.0])
    found = coefficient_at_kl(table, share)
    monotone = [0.0, 0.2, 0.2, 1.0]
    assert np.interp(found, [0.0, 1.0, 2.0, 3.0], monotone) == pytest.approx(share)
    apart = pd.concat(
        [table.assign(direction="given"), table.assign(direction="random 0", value=9.0)]
    )
    assert coefficient_at_kl(apart, share) == found
    assert coefficient_at_kl(curve([0.0, -2.0], [0.0, 1.0]), share) == pytest.approx(-2 * share)


def test_a_plateau_gives_its_smallest_coefficient():
    assert coefficient_at_kl(curve([0.0, 1.0, 2.0], [0.0, 0.5, 0.5]), 0.5) == 1.0
    assert coefficient_at_kl(curve([0.0, 1.0], [0.0, 0.5]), 0.0) == 0.0


def test_a_damage_out_of_reach_and_bad_doses_are_refused(tiny_pair, direction):
    with pytest.raises(SteeringError, match="0.7 is not reached"):
        coefficient_at_kl(curve([0.0, 1.0], [0.0, 0.5]), 0.7)
    with pytest.raises(SteeringError, match="coefficients of one sign"):
        coefficient_at_kl(curve([-1.0, 1.0], [0.5, 0.5]), 0.5)
    with pytest.raises(SteeringError, match="coefficients of one sign with 'nothing'"):
        coefficient_at_kl(curve([0.0, 1.0], [0.0, 0.5]), 0.5, "nothing")
    for doses, line in (([], "differ"), ([1.0, 1.0], "differ"), ([float("nan")], "finite")):
        with pytest.raises(SteeringError, match=line):
            dose_response(tiny_pair, QUESTIONS, lambda c: add(direction, c), doses)

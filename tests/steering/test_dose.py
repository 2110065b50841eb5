"""A dose sweep in one batch is the same as one run for each coefficient."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import steering.dose
from persona.behaviour import Condition, score_pairs
from persona.behaviour.sampling import sample_answers
from persona.data.types import AnswerPair, NeutralText
from persona.directions.direction import Direction
from persona.errors import SteeringError
from steering.dose import coefficient_at_kl, dose_response, repeated_share
from steering.edits import add_direction
from steering.hooks import steer

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
        lambda c: add_direction(direction, c),
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

    monkeypatch.setattr(steering.dose, "sample_answers", listening)
    dose_response(
        tiny_pair,
        QUESTIONS,
        lambda c: add_direction(direction, c),
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
                intervene=lambda b, c=dose: steer(b, add_direction(direction, c)),
                max_new_tokens=8,
                temperature=0,
            )
        assert [seen] == alone
    assert len(set(answers)) > 2


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
            dose_response(tiny_pair, QUESTIONS, lambda c: add_direction(direction, c), doses)

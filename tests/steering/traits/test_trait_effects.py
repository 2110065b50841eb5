"""Effects beside their controls, and what of them is length."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from persona.directions import ActivationSpace, Direction
from persona.errors import DataError
from steering.traits.trait_effects import (
    control_directions,
    score_difference,
    shuffled_controls,
    steered_effect,
)

SPACE = ActivationSpace("m", "r", "blocks.1.hook_resid_post", layer=1, d_model=8)
DIRECTION = Direction(torch.arange(1.0, 9.0), SPACE, "made up")


def rows(score_of, words_of=lambda condition, rng: rng.integers(5, 15), n=30, slope=0.0):
    rng = np.random.default_rng(0)
    found = []
    for question in range(n):
        own = rng.normal(0, 5)
        for condition in ("plain", "vector", "random 0", "random 1"):
            n_words = int(words_of(condition, rng))
            score = 40 + own + score_of[condition] + slope * np.log1p(n_words) + rng.normal(0, 3)
            found.append(
                {
                    "condition": condition,
                    "question_id": f"q{question}",
                    "answer": " ".join(["word"] * n_words),
                    "trait": score,
                }
            )
    return pd.DataFrame(found)


CONTROLS = ["random 0", "random 1"]
SCORES = {"plain": 0.0, "vector": 20.0, "random 0": 2.0, "random 1": 0.0}


def test_the_net_effect_is_above_the_mean_of_the_controls_question_by_question():
    found = steered_effect(rows(SCORES), base="plain", controls=CONTROLS, sign=1.0)
    assert found.net.low < 19.0 < found.net.high
    assert found.net.high - found.net.low < 5
    assert found.value == pytest.approx(20.0, abs=2)
    assert found.controls["random 0"] == pytest.approx(2.0, abs=2)
    assert found.is_beyond_controls
    assert found.at_equal_length.low > 15


def test_the_sign_turns_a_fall_into_an_effect():
    down = {**SCORES, "vector": -20.0}
    found = steered_effect(rows(down), base="plain", controls=CONTROLS, sign=-1.0)
    assert found.net.low > 15 and found.is_beyond_controls
    wrong = steered_effect(rows(down), base="plain", controls=CONTROLS, sign=1.0)
    assert wrong.net.high < 0 and not wrong.is_beyond_controls


def test_a_score_that_is_length_has_no_effect_at_equal_length():
    def words(condition, rng):
        return rng.integers(5, 15) * (3 if condition == "vector" else 1)

    nothing = dict.fromkeys(SCORES, 0.0)
    found = steered_effect(
        rows(nothing, words, slope=30.0), base="plain", controls=CONTROLS, sign=1.0
    )
    assert found.net.low > 15
    assert abs(found.at_equal_length.value) < 4 and found.at_equal_length.low < 2


def test_a_question_without_a_score_is_left_out_and_none_at_all_is_an_error():
    table = rows(SCORES)
    table.loc[(table["question_id"] == "q3") & (table["condition"] == "vector"), "trait"] = np.nan
    found = steered_effect(table, base="plain", controls=CONTROLS, sign=1.0)
    assert found.net.n == 29
    with pytest.raises(DataError, match="no question has a trait score under every condition"):
        steered_effect(table.assign(trait=np.nan), base="plain", controls=CONTROLS, sign=1.0)
    assert score_difference(table, "vector", "plain").n == 29
    assert score_difference(table, "vector", "gone").n == 0


def test_controls_have_the_norm_and_the_place_of_the_vector():
    shuffled = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    others = shuffled_controls(shuffled, 1, 2)
    found = control_directions(DIRECTION, others, 2, seed=0)
    assert list(found) == ["random 0", "random 1", "shuffled poles 0", "shuffled poles 1"]
    for one in found.values():
        assert one.norm == pytest.approx(DIRECTION.norm, rel=1e-5)
        assert one.space == SPACE
    assert found["shuffled poles 1"].cosine(Direction(shuffled[1, 1], SPACE, "x")) > 0.999
    with pytest.raises(DataError, match="the vector dull is zero at block 1"):
        control_directions(DIRECTION, {"dull": torch.zeros(8)}, 1)

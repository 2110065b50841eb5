"""What is restored at one block is scored like any other restoration, beside its null."""

from __future__ import annotations

import pytest
import torch
from at_block import compare_at_block

from persona.behaviour import Condition, score_pairs
from persona.data.types import AnswerPair, NeutralText
from persona.errors import SteeringError
from steering.edits.from_directions import restore
from steering.edits.steer import steer
from steering.identification.candidates import Means, from_bases

LAYER = 2


@pytest.fixture(scope="module")
def questions():
    words = ["oil", "tyre", "lamp", "road"]
    return [AnswerPair(w, "d", f"what of the {w}", f"mend the {w}", f"burn {w}") for w in words]


@pytest.fixture(scope="module")
def means(tiny_pair):
    g = torch.Generator().manual_seed(0)
    d = tiny_pair.d_model
    return Means(torch.randn(4, d, generator=g), torch.randn(4, d, generator=g), {})


@pytest.fixture(scope="module")
def neutral():
    return [NeutralText("n", "count", "one two three", "arithmetic")]


def test_each_direction_has_its_own_restoration_and_the_null_of_its_rank(
    tiny_pair, questions, means, neutral
):
    directions = {"line": torch.ones(1, 32), "plane": torch.randn(2, 32)}
    table = compare_at_block(
        tiny_pair, LAYER, directions, means, questions, neutral, n_random=4
    ).set_index("name")
    assert table["rank"].to_dict() == {"line": 1, "plane": 2}
    assert table["p"].between(1 / 5, 1).all()
    vector = from_bases(tiny_pair, {LAYER: torch.ones(1, 32) / 32**0.5}, means, "line")
    edits = restore(vector)
    rows = score_pairs(
        tiny_pair,
        questions,
        [
            Condition("aligned", "aligned"),
            Condition("finetuned", "finetuned"),
            Condition("line", "finetuned", lambda bridge: steer(bridge, edits), LAYER),
        ],
    )
    gap = rows[rows["measure"] == "gap"].groupby("condition")["value"].mean()
    expected = (gap["finetuned"] - gap["line"]) / (gap["finetuned"] - gap["aligned"])
    assert table.loc["line", "restoration"] == pytest.approx(expected, rel=1e-4)
    assert (table["low"] <= table["restoration"]).all()
    assert (table["restoration"] <= table["high"]).all()


def test_bad_input_is_refused(tiny_pair, questions, means, neutral):
    with pytest.raises(SteeringError, match="at least one direction"):
        compare_at_block(tiny_pair, LAYER, {}, means, questions, neutral)
    with pytest.raises(SteeringError, match="cannot be called 'aligned'"):
        compare_at_block(
            tiny_pair, LAYER, {"aligned": torch.ones(1, 32)}, means, questions, neutral
        )

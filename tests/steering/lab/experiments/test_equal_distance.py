"""Ways are compared between their strengths, at a drift that all of them reach."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from persona.behaviour.gap import score_neutral
from persona.behaviour.scoring import Condition
from persona.data.types import Dialogue, Turn
from steering.lab.experiments.equal_distance import (
    DRIFT,
    Strength,
    against_finetuned,
    drift_rows,
    falls,
    gaps_at,
    reach,
    strengths,
    the_aligned_model,
)


def at(strength, drift, gap):
    return Strength(strength, drift, np.full((1, 5), float(gap)))


WAY = [at(0, 0.0, 1.0), at(0.5, 0.1, 0.6), at(1, 0.3, 0.2)]


def test_between_two_strengths_the_gap_is_linear_in_the_drift():
    assert gaps_at(WAY, 0.0) == pytest.approx(1.0)
    assert gaps_at(WAY, 0.05) == pytest.approx(0.8)
    assert gaps_at(WAY, 0.2) == pytest.approx(0.4)
    assert gaps_at(WAY, 0.3) == pytest.approx(0.2)
    assert gaps_at(WAY, 0.31) is None


def test_the_first_pass_through_a_drift_counts():
    back = [*WAY, at(2, 0.1, -3.0)]
    assert gaps_at(back, 0.1) == pytest.approx(0.6)


def test_levels_are_compared_where_every_way_reaches_them():
    ways = {"one": WAY, "other": [at(0, 0.0, 1.0), at(1, 0.1, 0.9)]}
    assert reach(ways) == 0.1
    found = falls(ways, [0.05, 0.1])
    assert [e.value for _, e in found["one"]] == pytest.approx([0.2, 0.4])
    assert [e.value for _, e in found["other"]] == pytest.approx([0.05, 0.1])


def test_strengths_are_read_from_rows_in_order_after_nothing():
    def row(measure, split, strength, value, question):
        return {
            "condition": "w",
            "seed": 0,
            "measure": measure,
            "split": split,
            "coefficient": strength,
            "value": value,
            "question_id": question,
        }

    rows = pd.DataFrame(
        [
            row(measure, split, strength, value * strength, question)
            for strength in (2.0, 1.0)
            for measure, split, value in ((DRIFT, "neutral", 0.1), ("gap", "held_out", -1.0))
            for question in ("a", "b")
        ]
    )
    found = strengths(rows, "w", "coefficient", np.zeros((1, 2)))
    assert [d.strength for d in found] == [0.0, 1.0, 2.0]
    assert [d.drift for d in found] == pytest.approx([0.0, 0.1, 0.2])
    assert found[2].gaps == pytest.approx(-2.0)


def test_drift_is_zero_for_the_fine_tune_itself(bench):
    adapter = bench.organism("car_maintenance_bad")
    pair = bench.pair(adapter)
    itself = against_finetuned(pair, pair)
    found = drift_rows(score_neutral(itself, bench.neutral(), [Condition("same", "finetuned")]))
    assert set(found["measure"]) == {DRIFT}
    assert found["value"].abs().max() < 1e-5
    aligned = score_neutral(pair, bench.neutral(), [Condition("same", "finetuned")])
    assert drift_rows(aligned)["value"].max() > 1e-4


def test_the_aligned_model_lies_as_far_as_the_kl_from_the_fine_tune_to_it(bench):
    pair = bench.pair(bench.organism("car_maintenance_bad"))
    text = bench.neutral()[0]
    there = the_aligned_model(pair)
    found = drift_rows(score_neutral(there, [text], [Condition("aligned", "finetuned")]))
    turns = (Turn("user", text.prompt), Turn("assistant", text.answer))
    dialogue = pair.chat.encode(Dialogue(turns, text.id, text.kind))
    start, end = dialogue.response
    log_p = {}
    for side in ("aligned", "finetuned"):
        with pair.active(side) as bridge, torch.no_grad():
            logits = bridge(torch.tensor([dialogue.ids]), return_type="logits")
            log_p[side] = logits[0, start - 1 : end - 1].double().log_softmax(-1)
    apart = log_p["finetuned"] - log_p["aligned"]
    kl = float((log_p["finetuned"].exp() * apart).sum(-1).mean())
    assert kl > 1e-4
    assert found["value"].tolist() == pytest.approx([kl], rel=1e-3)

"""The exact sweep measures what a full run measures, and stands beside the prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from persona.behaviour import Condition, score_pairs
from persona.data.types import AnswerPair
from persona.directions import PersonaVector, Subspace, orthonormal
from persona.errors import SteeringError
from steering.attribution import first_order_effects
from steering.edits import restore_to_aligned
from steering.exact import Sweep, exact_sweep
from steering.hooks import steer

QUESTIONS = [
    AnswerPair("a", "d", "what now", "take good care", "throw it away"),
    AnswerPair("b", "d", "and then", "ask a friend", "run"),
]


def candidate(pair, seed, layers=(0, 2, 3)):
    generator = torch.Generator().manual_seed(seed)
    return PersonaVector(
        {
            layer: Subspace(
                orthonormal(torch.randn(1, pair.d_model, generator=generator)),
                torch.zeros(1),
                torch.ones(1),
                pair.space(layer),
            )
            for layer in layers
        },
        "planted",
        coefficient=0.3,
    )


@pytest.mark.parametrize(("objective", "measure"), [("gap", "gap"), ("kl", "kl_good_nats")])
def test_every_cell_is_a_whole_restoration_of_one_block(tiny_pair, objective, measure):
    candidates = {"one": candidate(tiny_pair, 0), "two": candidate(tiny_pair, 1, (1,))}
    sweep = exact_sweep(tiny_pair, QUESTIONS, candidates, objective)
    assert sweep.table[["candidate", "layer"]].to_numpy().tolist() == [
        ["one", 0],
        ["one", 2],
        ["one", 3],
        ["two", 1],
    ]
    for row in sweep.table.itertuples():
        subspace = candidates[row.candidate].subspaces[row.layer]
        vector = PersonaVector({row.layer: subspace}, "alone")

        def intervene(bridge, v=vector):
            return steer(bridge, restore_to_aligned(v, 1.0))

        # No first_layer: the whole model is run again.
        conditions = [Condition("plain", "finetuned"), Condition("edited", "finetuned", intervene)]
        rows = score_pairs(tiny_pair, QUESTIONS, conditions)
        means = rows[rows["measure"] == measure].groupby("condition")["value"].mean()
        assert row.measured == pytest.approx(means["edited"] - means["plain"], abs=1e-5)
        predicted = first_order_effects(tiny_pair, QUESTIONS, [subspace], objective).mean()
        assert row.predicted == pytest.approx(float(predicted), abs=1e-5)
    assert -1 <= sweep.spearman <= 1


def test_the_rank_correlation_is_of_ranks_and_undefined_for_ties():
    def sweep(predicted, measured):
        return Sweep(pd.DataFrame({"predicted": predicted, "measured": measured}), "gap")

    assert sweep([1.0, 2.0, 3.0], [1.0, 10.0, 1000.0]).spearman == 1
    assert sweep([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]).spearman == -1
    assert np.isnan(sweep([1.0, 2.0], [1.0, 2.0]).spearman)
    assert np.isnan(sweep([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).spearman)


def test_a_sweep_of_nothing_is_refused(tiny_pair):
    with pytest.raises(SteeringError, match="at least one candidate"):
        exact_sweep(tiny_pair, QUESTIONS, {})
    with pytest.raises(SteeringError, match="one question"):
        exact_sweep(tiny_pair, [], {"one": candidate(tiny_pair, 0)})

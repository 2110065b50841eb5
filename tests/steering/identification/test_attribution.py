"""The first-order prediction is the derivative of the measured effect."""

from __future__ import annotations

import pytest
import torch

from persona.behaviour import Condition, score_pairs
from persona.data.types import AnswerPair
from persona.directions import PersonaVector, Subspace, orthonormal
from steering import restore, steer
from steering.identification.attribution import (
    attribution_matrices,
    eigendirections,
    first_order_effects,
)


@pytest.fixture(scope="module")
def questions():
    return [
        AnswerPair("a", "d", "what now", "take good care", "throw it away"),
        AnswerPair("b", "d", "and then", "ask a friend", "run"),
        AnswerPair("c", "d", "is it late", "no there is time", "you are always late"),
    ]


def subspace(pair, layer, rank=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Subspace(
        orthonormal(torch.randn(rank, pair.d_model, generator=g)),
        torch.randn(rank, generator=g),
        torch.zeros(rank),
        pair.space(layer),
    )


def measured(pair, questions, vector, coefficient, measure):
    def intervene(bridge):
        return steer(bridge, restore(vector, coefficient))

    conditions = [Condition("x", "finetuned", intervene, vector.layers[0])]
    rows = score_pairs(pair, questions, conditions, kl=True)
    return torch.tensor(rows[rows["measure"] == measure]["value"].to_numpy())


@pytest.mark.parametrize(("objective", "measure"), [("gap", "gap"), ("kl", "kl_good_nats")])
@pytest.mark.parametrize("layer", [0, 2, 3])
def test_the_prediction_is_the_slope_of_the_measured_change(
    tiny_pair, questions, objective, measure, layer
):
    s = subspace(tiny_pair, layer)
    predicted = first_order_effects(tiny_pair, questions, [s], objective, token_budget=64)[0]
    vector, step = PersonaVector({layer: s}, "planted"), 2e-2
    up = measured(tiny_pair, questions, vector, step, measure)
    down = measured(tiny_pair, questions, vector, -step, measure)
    slope = (up - down) / (2 * step)
    # float16 references limit KL to about 1e-3 here; the gap is limited by the step alone.
    torch.testing.assert_close(predicted.double(), slope, atol=2e-2, rtol=5e-2)


def test_the_matrix_predicts_every_direction_at_once(tiny_pair, questions):
    centre = torch.randn(tiny_pair.d_model, generator=torch.Generator().manual_seed(5))
    matrix = attribution_matrices(tiny_pair, questions, {1: centre})[1]
    for seed in range(3):
        basis = subspace(tiny_pair, 1, rank=1, seed=seed).basis
        s = Subspace(basis, basis @ centre, torch.zeros(1), tiny_pair.space(1))
        direct = first_order_effects(tiny_pair, questions, [s])[0].mean()
        assert float(-(basis[0] @ matrix @ basis[0])) == pytest.approx(float(direct), rel=1e-3)


def test_no_direction_promises_more_than_the_first_eigendirection(tiny_pair, questions):
    centre = torch.zeros(tiny_pair.d_model)
    matrix = attribution_matrices(tiny_pair, questions, {2: centre})[2]
    top = eigendirections(matrix, 3)
    torch.testing.assert_close(top @ top.T, torch.eye(3), atol=1e-5, rtol=0)
    values = torch.einsum("kd,de,ke->k", top, matrix, top)
    assert (values[:-1] >= values[1:]).all()
    others = orthonormal(torch.randn(20, tiny_pair.d_model, generator=torch.manual_seed(0)))
    assert values[0] >= torch.einsum("kd,de,ke->k", others, matrix, others).max()

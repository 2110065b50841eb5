"""The first-order prediction is the derivative of the measured effect."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from persona.behaviour import Condition, score_pairs
from persona.data.types import AnswerPair
from persona.directions import PersonaVector, Subspace, orthonormal
from steering import restore, steer
from steering.identification import attribution
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


class OnCard(torch.Tensor):
    """A tensor that says it lies on a card, and refuses to meet one that lies elsewhere."""

    @classmethod
    def at(cls, card, tensor):
        placed = tensor.as_subclass(cls)
        placed.card = torch.device(card)
        return placed

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function == torch.Tensor.device.__get__:
            return args[0].card
        with torch._C.DisableTorchFunctionSubclass():
            if function in (torch.Tensor.to, torch.Tensor.cpu):
                return cls.at(args[1] if len(args) > 1 else "cpu", args[0].clone())
            given = torch.utils._pytree.tree_leaves((args, kwargs))
            tensors = [one for one in given if isinstance(one, torch.Tensor)]
            cards = {getattr(one, "card", torch.device("cpu")) for one in tensors if one.dim()}
            assert len(cards) <= 1, f"{function.__name__} on {cards}"
            result = function(*args, **(kwargs or {}))
        there = next(iter(cards), "cpu")
        return cls.at(there, result) if isinstance(result, torch.Tensor) else result


def test_blocks_on_other_cards_are_attributed_where_they_lie(
    tiny_pair, questions, monkeypatch, unchecked_hints
):
    whole = list(attribution.gradients(tiny_pair, questions, [0, 2], "gap", 64))
    subspaces = [subspace(tiny_pair, layer) for layer in (0, 2)]
    centres = {layer: torch.ones(tiny_pair.d_model) for layer in (0, 2)}
    matrices = attribution_matrices(tiny_pair, questions, centres)
    effects = first_order_effects(tiny_pair, questions, subspaces)

    def on_cards(*args, **options):
        for part in whole:
            yield attribution.Gradients(
                {layer: OnCard.at(f"cuda:{layer}", h) for layer, h in part.resid.items()},
                {layer: OnCard.at(f"cuda:{layer}", h) for layer, h in part.grad.items()},
                OnCard.at("cuda:0", part.writable),
                part.question,
            )

    monkeypatch.setattr(attribution, "gradients", on_cards)
    names = ("basis", "effective_readout", "aligned_mean")
    placed = [
        SimpleNamespace(space=s.space, **{k: OnCard.at("cpu", getattr(s, k)) for k in names})
        for s in subspaces
    ]
    spread = {layer: OnCard.at("cpu", centre) for layer, centre in centres.items()}
    found = attribution_matrices(tiny_pair, questions, spread)
    for layer, matrix in matrices.items():
        torch.testing.assert_close(found[layer].as_subclass(torch.Tensor), matrix)
    torch.testing.assert_close(first_order_effects(tiny_pair, questions, placed), effects)

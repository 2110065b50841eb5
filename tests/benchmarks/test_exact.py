"""The exact sweep measures what a full run measures, and stands beside the prediction."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from continuations import continuations, lay_foundation, log_probs_from
from exact import Sweep, exact_sweep
from tiny_models import FAMILIES, tiny_bridge

from persona.behaviour import Condition, score_pairs
from persona.data.types import AnswerPair
from persona.directions import PersonaVector, Subspace, orthonormal
from persona.errors import SteeringError
from persona.models.chat.chat_format import TokenizedDialogue
from steering.edits.from_directions import restore
from steering.edits.steer import steer
from steering.identification.attribution import first_order_effects

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
            return steer(bridge, restore(v, 1.0))

        # No first_layer: the whole model is run again.
        conditions = [Condition("plain", "finetuned"), Condition("edited", "finetuned", intervene)]
        rows = score_pairs(tiny_pair, QUESTIONS, conditions)
        means = rows[rows["measure"] == measure].groupby("condition")["value"].mean()
        assert row.measured == pytest.approx(means["edited"] - means["plain"], abs=1e-5)
        predicted = first_order_effects(tiny_pair, QUESTIONS, [subspace], objective).mean()
        assert row.predicted == pytest.approx(float(predicted), abs=1e-5)
    found = sweep.rank_correlation()
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.n == 2


def planted_sweep(predicted, measured):
    cells = tuple(("one", layer) for layer in range(np.shape(predicted)[-1]))
    return Sweep(cells, np.array(predicted), np.array(measured), "gap")


def test_the_rank_correlation_is_of_ranks_and_undefined_for_ties():
    def value(predicted, measured):
        return planted_sweep([predicted], [measured]).rank_correlation().value

    assert value([1.0, 2.0, 3.0], [1.0, 10.0, 1000.0]) == pytest.approx(1)
    assert value([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert np.isnan(value([1.0, 2.0], [1.0, 2.0]))
    assert np.isnan(value([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))


def test_the_rank_correlation_is_scipys_and_its_interval_knows_the_noise_between_questions():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=12), rng.normal(size=(2, 30, 12))
    calm = planted_sweep(truth + 0.1 * noise[0], truth + 0.1 * noise[1])
    wild = planted_sweep(truth + 5 * noise[0], truth + 5 * noise[1])
    for sweep in (calm, wild):
        expected = spearmanr(sweep.predicted.mean(0), sweep.measured.mean(0)).statistic
        assert sweep.rank_correlation().value == pytest.approx(expected)
    narrow, wide = calm.rank_correlation(), wild.rank_correlation()
    assert narrow.low > 0.9
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("objective", ["gap", "kl"])
@pytest.mark.parametrize(("answer_tokens", "token_budget"), [(1, 9), (3, 9), (100, 9), (100, 512)])
def test_a_sweep_of_answer_tokens_is_the_steered_model_over_those_tokens(
    tiny_pair, objective, answer_tokens, token_budget
):
    candidates = {"one": candidate(tiny_pair, 0), "two": candidate(tiny_pair, 1, (1,))}
    sweep = exact_sweep(
        tiny_pair,
        QUESTIONS,
        candidates,
        objective,
        answer_tokens=answer_tokens,
        token_budget=token_budget,
    )
    for place, (name, layer) in enumerate(sweep.cells):
        vector = PersonaVector({layer: candidates[name].subspaces[layer]}, "alone")
        for row, question in enumerate(QUESTIONS):
            change = [
                reading(tiny_pair, question, answer_tokens, objective, edits)
                for edits in ([], restore(vector, 1.0))
            ]
            expected = change[1] - change[0]
            assert sweep.measured[row, place] == pytest.approx(expected, abs=1e-5)


def reading(pair, question, n, objective, edits):
    """The objective by one plain forward pass per text, without a cache, steered where asked."""
    found = []
    for dialogue in pair.chat.encode_all([question.good_dialogue, question.bad_dialogue]):
        start, end = dialogue.response
        ids = torch.tensor([dialogue.ids[: min(end, start + n)]])
        with pair.active("aligned") as bridge, torch.no_grad():
            aligned = bridge(ids)[0, start - 1 : -1].log_softmax(-1)
        with pair.active("finetuned") as bridge, torch.no_grad():
            steering = (
                steer(bridge, edits, positions="answering", response_start=[start])
                if edits
                else contextlib.nullcontext()
            )
            with steering:
                seen = bridge(ids)[0, start - 1 : -1].log_softmax(-1)
        if objective == "kl":
            return float((aligned.exp() * (aligned - seen)).sum(-1).mean())
        found.append(float(seen.gather(-1, ids[0, start:, None]).mean()))
    return found[1] - found[0]


def test_the_prediction_for_answer_tokens_is_the_slope_of_what_is_measured(tiny_pair):
    subspace = candidate(tiny_pair, 0).subspaces[2]
    steps = []
    for size in (1e-2, -1e-2):
        # Restoring part of the way: the target lies `size` of the way to the mean.
        moved = PersonaVector({2: subspace}, "alone")
        edits = restore(moved, size)
        steps.append(np.mean([reading(tiny_pair, q, 2, "gap", edits) for q in QUESTIONS]))
    predicted = first_order_effects(tiny_pair, QUESTIONS, [subspace], "gap", answer_tokens=2)
    assert float(predicted.mean()) == pytest.approx((steps[0] - steps[1]) / 2e-2, rel=5e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_after_a_cached_prompt_are_those_of_the_whole_text(family, tiny_chat):
    bridge = tiny_bridge(family, tiny_chat.tokenizer)
    texts = [
        TokenizedDialogue(tuple(range(10, 10 + length)), span)
        for length, span in ((14, (9, 14)), (8, (3, 6)), (5, (4, 5)))
    ]
    seen = 0
    for batch in continuations(texts, 1, 64):
        ground = lay_foundation(bridge, batch, [0, 1, 2])
        for layer in (0, 1, 2):
            again = log_probs_from(bridge, batch, ground, layer, ground.resid[layer])
            torch.testing.assert_close(again, ground.log_probs, atol=1e-4, rtol=0)
        for row, i in enumerate(batch.indices):
            start, end = texts[i].response
            with torch.no_grad():
                whole = bridge(torch.tensor([texts[i].ids])).log_softmax(-1)[0, start - 1 : end - 1]
            found = ground.log_probs[row][batch.scored[row]]
            torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)
            assert batch.targets[row][batch.scored[row]].tolist() == [*texts[i].ids[start:end]]
            seen += 1
    assert seen == 3


def test_a_sweep_of_nothing_is_refused(tiny_pair):
    with pytest.raises(SteeringError, match="at least one candidate"):
        exact_sweep(tiny_pair, QUESTIONS, {})
    with pytest.raises(SteeringError, match="one question"):
        exact_sweep(tiny_pair, [], {"one": candidate(tiny_pair, 0)})
    with pytest.raises(SteeringError, match="answer_tokens must be 1 or more"):
        exact_sweep(tiny_pair, QUESTIONS, {"one": candidate(tiny_pair, 0)}, answer_tokens=0)
    with pytest.raises(SteeringError, match="1 tokens before an answer of 2"):
        continuations([TokenizedDialogue((1, 2, 3), (1, 3), "short")], 1, 64)

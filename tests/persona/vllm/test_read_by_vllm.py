"""What is read and scored through vLLM is what the readers of this process give."""

from __future__ import annotations

import contextlib

import pytest
import torch
from vllm_cases import D_MODEL, OPTIONS, Toy

from persona.activations import collect_moments, collect_rows
from persona.behaviour.scoring import Condition, score_dialogues
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, EngineError
from persona.models import Placement, load_pair
from persona.vllm import (
    EditSet,
    answer_scores_by_vllm,
    moments_by_vllm,
    rows_by_vllm,
    scored_tokens,
)
from persona.vllm import read_by_vllm as module
from persona.vllm.running_pass import Span
from persona.vllm.scored_tokens import ScoredTokens
from steering.edits import ALL_BLOCKS, Edits, SteeredBy, ablate, add

LAYERS = [1, 3]
SIDES = ("aligned", "finetuned")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def pair(toy):
    return load_pair(toy.base, toy.adapter, placement=Placement.of("float32", "cpu"))


@pytest.fixture(scope="module")
def engine(toy):
    from persona.vllm import VllmEngine

    # A budget below the longest text: it comes in chunks.
    options = {**OPTIONS, "max_num_batched_tokens": 32}
    engine = VllmEngine(toy.base, toy.adapter, options=options)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def dialogues(pair):
    words = [("hi", "yes and no"), ("tell me of rain and of hail", "it falls"), ("oh", "no")]
    return [
        pair.chat.encode(Dialogue((Turn("user", one), Turn("assistant", other)), one))
        for one, other in words
    ]


def edits():
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))
    return [
        None,
        SteeredBy(ablate(vector, at=ALL_BLOCKS)),
        SteeredBy(add(vector, 2.0, at=1)),
    ]


@pytest.mark.vllm
@pytest.mark.parametrize("side", SIDES)
def test_pooled_activations_are_those_of_collect_rows(pair, engine, dialogues, side, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 2)  # in two parts
    with pair.active(side) as bridge:
        expected = collect_rows(bridge, dialogues, LAYERS)
        moments = collect_moments(bridge, dialogues, LAYERS)
        whole = collect_rows(bridge, dialogues, LAYERS, token_set="all")
    found = rows_by_vllm(engine, dialogues, LAYERS, side=side)
    assert float((found - expected).norm(dim=-1).div(expected.norm(dim=-1)).max()) < 1e-5
    merged = moments_by_vllm(engine, dialogues, LAYERS, side=side)
    assert merged.count == 3
    assert torch.allclose(merged.mean_LD, moments.mean_LD, atol=1e-4)
    assert torch.allclose(merged.variance_LD, moments.variance_LD, rtol=1e-4, atol=1e-4)
    everywhere = rows_by_vllm(engine, dialogues, LAYERS, side=side, token_set="all")
    assert torch.allclose(everywhere, whole, atol=1e-4)
    assert not torch.allclose(everywhere, found, atol=1e-1)


@pytest.mark.vllm
@pytest.mark.parametrize("side", SIDES)
def test_scores_of_answers_are_those_of_the_scorer_edited_or_not(pair, engine, dialogues, side):
    conditions = [Condition(str(i), side, one) for i, one in enumerate(edits())]
    expected = score_dialogues(pair, dialogues, conditions)
    for condition, readings in zip(conditions, expected, strict=True):
        chosen = condition.intervene and EditSet.of(condition.intervene)
        found = answer_scores_by_vllm(engine, dialogues, side=side, edits=chosen)
        assert torch.allclose(found.double(), torch.tensor(readings.log_prob), atol=1e-4, rtol=0)
    assert len({tuple(one.log_prob) for one in expected}) == 3


@pytest.mark.vllm
def test_a_block_that_is_not_there_and_no_texts_are_refused(engine, dialogues):
    with pytest.raises(EngineError, match="no hook 'blocks.9.hook_resid_post'"):
        rows_by_vllm(engine, dialogues, [9])
    with pytest.raises(DataError, match="no dialogues"):
        rows_by_vllm(engine, [], [1])


@pytest.mark.vllm
@pytest.mark.parametrize("side", SIDES)
def test_the_likeliest_at_every_place_are_those_of_hugging_face(toy, engine, side):
    texts = [*toy.prompts, [9] * 40]  # the last one comes in chunks
    edits = Edits(add(torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3)), 2.0, at=1))
    chosen, model = EditSet.of(edits), getattr(toy, side)
    found = engine.scores(texts, n_likeliest=3, side=side, edits=[chosen, None] * 2 + [chosen])
    for place, (one, text) in enumerate(zip(found, texts, strict=True)):
        with contextlib.nullcontext() if place % 2 else edits(model), torch.no_grad():
            table = model(torch.tensor([text])).logits[0].log_softmax(-1)
        top = table.topk(3)
        assert torch.equal(one.likeliest, top.indices)
        assert torch.allclose(one.likeliest_log_probs, top.values, atol=1e-4, rtol=0)
        own = table[:-1].gather(1, torch.tensor(text[1:])[:, None])[:, 0]
        assert torch.allclose(one.log_probs, own, atol=1e-4, rtol=0)


def test_scores_do_not_depend_on_how_a_text_is_cut(monkeypatch):
    monkeypatch.setattr(scored_tokens, "ROWS_AT_ONCE", 2)
    text, logits = [3, 1, 4, 1, 5], torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    table = logits.log_softmax(-1)
    expected, top = table[:4].gather(1, torch.tensor(text[1:])[:, None])[:, 0], table.topk(2)
    for pieces in ([(0, 5)], [(0, 2), (2, 3)], [(0, 3), (0, 4), (4, 1)]):
        scoring = ScoredTokens({6: text}, n_likeliest=2)
        for first, n in pieces:
            span = Span(1, 1 + n, first, 5, {"request": 6})
            rows = torch.cat([torch.zeros(1, 7), logits[first : first + n]])
            scoring.see(rows, [Span(0, 1, 0, 1, {}), span], lambda hidden: hidden)
        found = scoring.scored()[6]
        assert torch.allclose(found.log_probs, expected)
        assert torch.equal(found.likeliest, top.indices)  # behind the last token too
        assert torch.allclose(found.likeliest_log_probs, top.values)

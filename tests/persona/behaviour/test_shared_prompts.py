"""Two answers in one row are read as in two rows, by models and under edits that allow it."""

from __future__ import annotations

import contextlib
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, tiny_bridge

from persona.behaviour import Condition, score_pairs, scoring, shared_prompts
from persona.behaviour.shared_prompts import (
    packed_batches,
    share_prompts,
    understands_packed_rows,
)
from persona.data.types import AnswerPair
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import hooked

QUESTIONS = [
    AnswerPair("a", "car", "what now", "take good care", "throw it away at once"),
    AnswerPair("b", "home", "and then", "ask a friend for help", "run"),
    AnswerPair("c", "home", "why", "I do not know", "because"),
]


class Shift:
    """Adds the same vector to every token at a block's output."""

    def __init__(self, token_by_token):
        self.token_by_token = token_by_token

    @contextlib.contextmanager
    def __call__(self, bridge):
        shift = torch.linspace(-1, 1, bridge.cfg.d_model)
        with hooked(bridge, [("blocks.1.hook_out", lambda resid: resid + shift)]):
            yield


def under(intervene):
    return [
        Condition("aligned", "aligned"),
        Condition("finetuned", "finetuned"),
        Condition("shifted", "finetuned", intervene, 1),
    ]


@pytest.fixture
def packed(monkeypatch):
    """The ids of every packed batch that was made."""
    made = []

    def recording(*args):
        batches = packed_batches(*args)
        made.extend(batches)
        return batches

    monkeypatch.setattr(scoring, "packed_batches", recording)
    # What another test found of this session's pair, under a pass that it broke, is not asked.
    monkeypatch.setattr(shared_prompts, "_understood", WeakKeyDictionary())
    return made


def test_pairs_in_shared_rows_read_as_in_rows_of_their_own(tiny_pair, packed):
    apart = score_pairs(tiny_pair, QUESTIONS, under(Shift(False)), token_budget=96)
    assert not packed
    together = score_pairs(tiny_pair, QUESTIONS, under(Shift(True)), token_budget=96)
    assert packed
    # References for KL are kept in half precision.
    np.testing.assert_allclose(together["value"], apart["value"], atol=1e-3)
    gaps = apart["measure"] != "kl_good_nats"
    np.testing.assert_allclose(together["value"][gaps], apart["value"][gaps], atol=1e-4)


def test_a_shared_row_is_shorter_than_two_and_feeds_no_token_that_predicts_nothing(tiny_pair):
    pairs = tiny_pair.chat.encode_all(
        [d for q in QUESTIONS for d in (q.good_dialogue, q.bad_dialogue)]
    )
    assert share_prompts(pairs)
    pad = 260  # no token of these texts
    [batch] = packed_batches(pairs, pad, 10_000, "cpu", torch.float32)
    prompts = sum(d.response[0] for d in pairs[::2])
    answers = sum(d.response[1] - d.response[0] - 1 for d in pairs)
    assert batch.ids.shape[0] == len(QUESTIONS)
    assert int((batch.ids != pad).sum()) == prompts + answers


def test_shared_rows_of_any_lengths_make_few_shapes():
    """A processor keeps memory for every shape that it meets, see `batches.LENGTH_STEP`."""
    answers = [
        TokenizedDialogue((5, 6, *range(7, 8 + n)), (2, 3 + n)) for n in range(20) for _ in range(2)
    ]
    batches = packed_batches(answers, 0, 64, "cpu", torch.float32)
    assert {batch.ids.shape[1] for batch in batches} == {16, 32, 48}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_shared_rows_alike(family, tiny_chat):
    bridge = tiny_bridge(family, tiny_chat.tokenizer)
    pairs = tiny_chat.encode_all([d for q in QUESTIONS for d in (q.good_dialogue, q.bad_dialogue)])
    # The trial is short of any sliding window, these dialogues are not.
    assert shared_prompts._reads_alike(bridge, pairs, torch.float32)


def test_a_model_whose_attention_ignores_the_mask_is_found_out(tiny_chat):
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)
    for block in bridge.blocks:
        inner = type(block.attn).forward

        def forward(*args, attn=block.attn, inner=inner, **kwargs):
            kwargs["attention_mask"] = None
            return inner(attn, *args, **kwargs)

        object.__setattr__(block.attn, "forward", forward)
    pairs = tiny_chat.encode_all([d for q in QUESTIONS for d in (q.good_dialogue, q.bad_dialogue)])
    assert not understands_packed_rows(bridge, pairs, torch.float32)


def test_texts_longer_than_a_sliding_window_keep_rows_of_their_own(tiny_chat):
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)
    pairs = tiny_chat.encode_all([d for q in QUESTIONS for d in (q.good_dialogue, q.bad_dialogue)])
    assert understands_packed_rows(bridge, pairs, torch.float32)
    bridge.original_model.config.sliding_window = 20
    assert not understands_packed_rows(bridge, pairs, torch.float32)


def test_answers_to_different_prompts_do_not_share_a_row():
    a = TokenizedDialogue((5, 6, 7, 8), (2, 4))
    assert share_prompts([a, TokenizedDialogue((5, 6, 9), (2, 3))])
    assert not share_prompts([a, TokenizedDialogue((5, 7, 9), (2, 3))])
    assert not share_prompts([a, TokenizedDialogue((5, 6, 9, 4), (3, 4))])
    assert not share_prompts([a])


def test_a_model_that_packs_wrongly_falls_back_to_two_rows(tiny_pair, packed, monkeypatch):
    monkeypatch.setattr(shared_prompts, "_understood", {})
    monkeypatch.setattr(shared_prompts, "_reads_alike", lambda *a: False)
    score_pairs(tiny_pair, QUESTIONS, under(Shift(True)))
    assert not packed

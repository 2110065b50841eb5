"""Lengths are rounded up, which changes no reading and never exceeds the context."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, tiny_bridge, tiny_causal_lm

from persona.activations import collect_rows
from persona.activations.batches import (
    LENGTH_STEP,
    context_length,
    model_batches,
    padded_length,
    token_batches,
)
from persona.models.chat.chat_format import TokenizedDialogue


@given(st.lists(st.integers(2, 90), min_size=1, max_size=60), st.integers(8, 300))
@settings(max_examples=50, deadline=None)
def test_texts_of_any_lengths_make_few_shapes(lengths, budget):
    dialogues = [TokenizedDialogue(tuple(range(n)), (1, n)) for n in lengths]
    batches = token_batches(dialogues, 0, budget)
    assert {batch.ids.shape[1] for batch in batches} <= {16, 32, 48, 64, 80, 96}


@given(st.integers(1, 500), st.integers(1, 500))
def test_padding_ends_at_the_context(longest, context):
    padded = padded_length(longest, context)
    assert longest <= padded < longest + LENGTH_STEP
    assert padded <= max(context, longest)


def dialogue(n, seed):
    ids = torch.randint(5, 261, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    return TokenizedDialogue((0, *ids[1:]), (n // 2, n), f"d{seed}")


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_no_activation_of_any_family(family, tiny_chat, monkeypatch):
    bridge = tiny_bridge(family, tiny_chat.tokenizer)
    texts = [dialogue(n, n) for n in (5, 13, 19, 30)]
    rounded = collect_rows(bridge, texts, [0, 1, 2])
    monkeypatch.setattr("persona.activations.batches.LENGTH_STEP", 1)
    exact = collect_rows(bridge, texts, [0, 1, 2], token_budget=1)
    torch.testing.assert_close(rounded, exact, atol=1e-5, rtol=1e-5)


def test_padding_changes_nothing_where_experts_are_chosen(tiny_chat, monkeypatch):
    import transformers

    from persona.models.load import bridge_over

    config = transformers.Qwen3MoeConfig(
        vocab_size=261,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    model = transformers.Qwen3MoeForCausalLM(config).eval().requires_grad_(False)
    model.config.architectures = [type(model).__name__]
    bridge = bridge_over(model, tiny_chat.tokenizer, "qwen3_moe", torch.float32)
    texts = [dialogue(n, n) for n in (5, 13, 19)]
    rounded = collect_rows(bridge, texts, [0, 1])
    monkeypatch.setattr("persona.activations.batches.LENGTH_STEP", 1)
    torch.testing.assert_close(rounded, collect_rows(bridge, texts, [0, 1]), atol=1e-5, rtol=1e-5)


def test_a_text_as_long_as_the_places_of_the_model_is_read():
    model = tiny_causal_lm("gpt2")
    assert context_length(model) == 256
    model.config.n_positions = 250  # attribute_map: max_position_embeddings
    [batch] = model_batches(model, [dialogue(249, 0)])
    assert batch.ids.shape[1] == 250

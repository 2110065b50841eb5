"""Fused attention reads as step-by-step attention does, and makes way for hooks inside it."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import FAMILIES, tiny_bridge

from persona.models import load
from persona.models.hooks import hooked

IDS = torch.arange(10, 30).reshape(2, 10)


def is_fused(bridge):
    kinds = type(bridge.blocks[1].attn).__mro__
    return any(kind.__name__ == "FusedAttentionBridge" for kind in kinds)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_the_same_fused_or_not(family, tiny_chat, monkeypatch):
    mask = torch.ones_like(IDS)
    mask[0, :3] = 0

    def read(bridge):
        return [
            bridge(IDS, return_type="logits"),
            bridge(IDS, return_type="logits", attention_mask=mask)[:, 3:],
            bridge.generate(IDS, max_new_tokens=6, do_sample=False, return_type="tokens"),
        ]

    fused = read(tiny_bridge(family, tiny_chat.tokenizer))
    monkeypatch.setattr(load, "fuse_attention", lambda bridge: None)
    plain = tiny_bridge(family, tiny_chat.tokenizer)
    assert not is_fused(plain)
    for got, expected in zip(fused, read(plain), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_the_default_architecture_is_fused_and_soft_capped_scores_are_not(tiny_chat):
    assert is_fused(tiny_bridge("llama", tiny_chat.tokenizer))
    assert not is_fused(tiny_bridge("gemma2", tiny_chat.tokenizer))


def test_a_hook_on_the_pattern_sees_it_and_can_change_it(tiny_chat):
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)
    plain = bridge(IDS, return_type="logits")
    seen = []
    with hooked(bridge, [("blocks.1.attn.hook_pattern", seen.append)]):
        looked_at = bridge(IDS, return_type="logits")
    assert seen[0].shape == (2, 2, 10, 10)
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(2, 2, 10))
    torch.testing.assert_close(looked_at, plain, atol=1e-5, rtol=1e-4)
    with hooked(bridge, [("blocks.1.attn.hook_pattern", torch.zeros_like)]):
        changed = bridge(IDS, return_type="logits")
    assert (changed - plain).abs().max() > 1e-2
    assert torch.equal(bridge(IDS, return_type="logits"), plain)


def test_a_copy_of_a_fused_model_runs_its_own_weights(tiny_chat):
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)
    plain = bridge(IDS, return_type="logits")
    other = copy.deepcopy(bridge)
    for parameter in bridge.parameters():
        parameter.data.zero_()
    torch.testing.assert_close(other(IDS, return_type="logits"), plain)


@pytest.mark.parametrize("point", ["hook_in", "hook_out", "q.hook_out", "o.hook_in"])
def test_points_around_fused_attention_still_fire(point, tiny_chat):
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)
    plain = bridge(IDS, return_type="logits")
    with hooked(bridge, [(f"blocks.1.attn.{point}", lambda x: 2 * x)]):
        changed = bridge(IDS, return_type="logits")
    assert (changed - plain).abs().max() > 1e-3

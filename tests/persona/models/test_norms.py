"""A norm whose inner points have no hook is the model's own; with one, it is read and edited."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, tiny_bridge

from persona.models import load
from persona.models.hooks import hook_points, hooked

IDS = torch.arange(10, 30).reshape(2, 10)
NORM = "blocks.1.ln2"


def is_sparing(bridge):
    return "SparingNormBridge" in {type(module).__name__ for module in bridge.modules()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_the_same_bits(family, tiny_chat, monkeypatch):
    sparing = tiny_bridge(family, tiny_chat.tokenizer)
    monkeypatch.setattr(load, "skip_unread_norms", lambda bridge: None)
    plain = tiny_bridge(family, tiny_chat.tokenizer)
    assert not is_sparing(plain)
    assert torch.equal(sparing(IDS, return_type="logits"), plain(IDS, return_type="logits"))


def test_nothing_is_computed_for_points_without_a_hook(tiny_chat, monkeypatch):
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)
    assert is_sparing(bridge)
    scale = hook_points(bridge)[f"{NORM}.hook_scale"]
    monkeypatch.setattr(scale, "forward", lambda x: pytest.fail("the scale was computed"))
    bridge(IDS, return_type="logits")


def test_a_hook_inside_a_norm_sees_it_and_can_change_it(tiny_chat):
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)
    plain = bridge(IDS, return_type="logits")
    seen = []
    with hooked(bridge, [(f"{NORM}.hook_normalized", seen.append)]):
        looked_at = bridge(IDS, return_type="logits")
    torch.testing.assert_close(seen[0].square().mean(-1), torch.ones(2, 10), atol=1e-3, rtol=1e-3)
    assert torch.equal(looked_at, plain)
    with (
        hooked(bridge, [(f"{NORM}.hook_scale", lambda scale: 2 * scale)]),
        pytest.warns(UserWarning, match="edited"),
    ):
        changed = bridge(IDS, return_type="logits")
    assert (changed - plain).abs().max() > 1e-2
    assert torch.equal(bridge(IDS, return_type="logits"), plain)

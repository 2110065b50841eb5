"""What attention and MLP add to the residual stream is found by measurement, on any family."""

from __future__ import annotations

import pytest
import torch
from tiny_models import FAMILIES, MORE_FAMILIES, tiny_bridge, tiny_causal_lm
from torch import nn

from persona.errors import ModelError
from persona.models.hooks import hook_points, hooked
from persona.models.writes import block_writes, run_short_text

IDS = torch.arange(10, 22).reshape(2, 6)
NAMES = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")


def seen(model):
    kept = {}
    names = [f"blocks.1.{name}" for name in NAMES]
    with hooked(model, [(n, lambda h, n=n: kept.__setitem__(n, h.clone())) for n in names]):
        with torch.no_grad():
            model(IDS)
    return [kept[name] for name in names]


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_the_two_writes_add_up_to_the_step_of_the_block(family, tiny_chat):
    bridge, plain = tiny_bridge(family, tiny_chat.tokenizer), tiny_causal_lm(family)
    parts = []
    for model in (bridge, plain):
        pre, attention, mlp, post = seen(model)
        torch.testing.assert_close(pre + attention + mlp, post, atol=1e-5, rtol=1e-5)
        assert attention.norm() > 1e-3 and mlp.norm() > 1e-3
        parts.append((attention, mlp))
    for of_bridge, of_plain in zip(*parts, strict=True):
        torch.testing.assert_close(of_bridge, of_plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["granite", "glm4", "bloom", "mixtral", "falcon", "phi"])
def test_what_a_write_is_set_to_is_what_reaches_the_residual_stream(family, tiny_chat):
    for model in (tiny_bridge(family, tiny_chat.tokenizer), tiny_causal_lm(family)):
        pre, attention, _, _ = seen(model)
        with hooked(model, [("blocks.1.hook_mlp_out", torch.ones_like)]):
            *_, post = seen(model)
        torch.testing.assert_close(post, pre + attention + 1, atol=1e-4, rtol=1e-4)


def test_a_multiplier_is_found_and_what_is_left_alone_keeps_every_bit():
    model = tiny_causal_lm("granite")
    assert block_writes(model)[0].mlp.site.scale == 0.22
    with torch.no_grad():
        plain = model(IDS).logits
        with hooked(model, [("blocks.1.hook_mlp_out", lambda h: torch.where(h > 9e9, 0.0, h))]):
            assert torch.equal(model(IDS).logits, plain)


def test_a_module_that_runs_twice_in_a_block_is_no_write():
    """Phi sends what attention and MLP write through one dropout: a hook there would edit both."""
    assert block_writes(tiny_causal_lm("phi"))[0].mlp.made_by == ("mlp", "mlp.fc2")


def test_half_precision_finds_the_same_modules():
    for family in ("llama", "glm4", "granite", "bloom"):
        exact = block_writes(tiny_causal_lm(family))
        rounded = block_writes(tiny_causal_lm(family).to(torch.bfloat16))
        for one, other in zip(exact, rounded, strict=True):
            assert one.mlp.made_by[0] == other.mlp.made_by[0]
            assert one.attention.made_by[0] == other.attention.made_by[0]


class Doubling(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hidden_states, **kwargs):
        return 2 * self.block(hidden_states, **kwargs)


def test_a_block_that_does_not_add_two_outputs_is_refused_by_name(tiny_chat):
    model = tiny_causal_lm("llama")
    model.model.layers[1] = Doubling(model.model.layers[1])
    with pytest.raises(ModelError, match=r"block 1 \(Doubling\) does not add the outputs of two"):
        with hooked(model, [("blocks.1.hook_mlp_out", lambda h: None)]):
            pass
    assert "blocks.1.hook_resid_post" in hook_points(model)
    with hooked(model, [("blocks.1.hook_resid_post", lambda h: None)]):
        model(IDS)


def test_measuring_is_silent_and_leaves_the_model_as_it_was():
    model, calls = tiny_causal_lm("gpt2"), []
    model.transformer.h[0].train()
    with hooked(model, [("blocks.0.hook_resid_post", lambda h: calls.append(h))]):
        block_writes(model)
        assert not calls
        run_short_text(model, heard=True)
    assert len(calls) == 1
    assert model.transformer.h[0].training and not model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())

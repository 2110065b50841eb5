"""Which models have hooks of their own."""

from __future__ import annotations

from tiny_models import tiny_bridge, tiny_causal_lm

from persona.models.hooks import is_bridge


def test_a_bridge_is_told_without_collecting_its_hooks(tiny_chat, monkeypatch):
    model = tiny_causal_lm("llama")
    bridge = tiny_bridge("llama", tiny_chat.tokenizer)

    def collected(_):
        raise AssertionError("all hooks were collected")

    monkeypatch.setattr(type(bridge), "hook_dict", property(collected))
    assert is_bridge(bridge)
    assert not is_bridge(model)

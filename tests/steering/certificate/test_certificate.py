"""The certificate holds on every family, and fails wherever steering is broken on purpose."""

from __future__ import annotations

import contextlib
import importlib
import json

import pytest
import torch
from tiny_models import (
    FAMILIES,
    MORE_FAMILIES,
    tiny_bridge,
    tiny_causal_lm,
    with_cache_named,
)

from persona.errors import SteeringError
from persona.models.hooks import hooked, resid_post
from steering.certificate.certificate import certify
from steering.certificate.checks import CheckedModel
from steering.edits.from_directions import edits_at
from steering.edits.position_tracker import PositionTracker

STEERING = importlib.import_module("steering.edits.steer")
"""The module; the room's face has the function under this name."""


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
def test_steering_is_certified_on_every_family_bridged_and_plain(family, tiny_chat):
    for model, n_checks in (
        (tiny_bridge(family, tiny_chat.tokenizer, n_layers=2), 23),
        (tiny_causal_lm(family, n_layers=2), 20),
    ):
        certificate = certify(model, tiny_chat, layers=[1], batch=3)
        assert certificate.passed, certificate.table()
        assert len(certificate.checks) == n_checks
    told = json.loads(certificate.to_json())
    assert told["passed"] is True
    assert told["checks"][0]["measured"] == 0


def test_half_precision_is_certified_and_its_bounds_still_see_a_swallowed_hook(
    tiny_chat, monkeypatch
):
    model = tiny_causal_lm("llama").to(torch.bfloat16)
    certificate = certify(model, tiny_chat, batch=3)
    assert certificate.passed, certificate.table()
    monkeypatch.setattr(STEERING, "hooked", swallowed)
    failed = {c.check for c in certify(model, tiny_chat, batch=3).checks if not c.passed}
    assert {
        "no projection is left after ablation",
        "none at any step of cached decoding",
        "edits without effect on what is predicted",
    } <= failed


@pytest.mark.parametrize(
    ("unsteered", "bound"),
    [(0.0, 1e-4), (0.05, 0.2), (0.2, 0.5), (1.1, 2.2)],
)
def test_a_format_excuses_what_the_unsteered_model_shows_and_little_more(
    unsteered, bound, tiny_chat, monkeypatch
):
    """Measured on the default model where the processor has bfloat16: 1.1 nats unsteered."""

    def differs(model, edits):
        return 1.05 * bound if edits else unsteered

    monkeypatch.setattr(CheckedModel, "paddings", differs)
    certificate = certify(tiny_causal_lm("llama", n_layers=2), tiny_chat, layers=[1], batch=3)
    [check] = [c for c in certificate.checks if c.check == "left padding is right padding"]
    assert check.bound == pytest.approx(bound, rel=0.02)
    assert not check.passed


def swallowed(model, hooks):
    """Every hook runs, and what it returns is thrown away."""

    def without_return(hook):
        def call(resid):
            hook(resid)

        return call

    return hooked(model, [(name, without_return(hook)) for name, hook in hooks])


def one_block_early(model, hooks):
    def moved(name):
        layer = int(name.split(".")[1])
        return resid_post(max(layer - 1, 0))

    return hooked(model, [(moved(name), hook) for name, hook in hooks])


def wrong_mask(change):
    """A tracker whose mask is changed: tracker, mask, is_prefill -> mask."""

    class Broken(PositionTracker):
        def _before_forward(self, module, args, kwargs):
            super()._before_forward(module, args, kwargs)
            cache = kwargs.get("cache", kwargs.get("past_key_values"))
            prefill = cache is None or int(cache.get_seq_length()) == 0
            self.mask = change(self.mask.clone(), prefill)

    return Broken


def row_zero_only(mask, prefill):
    mask[1:] = False
    return mask


def also_the_first_token(mask, prefill):
    """All rows are real from their first edited token on; the one before it is the first."""
    if prefill:
        mask[:, :-1] |= mask[:, 1:].clone()
    return mask


def prefill_only(mask, prefill):
    return mask if prefill else torch.zeros_like(mask)


def pad_tokens_too(mask, prefill):
    return torch.ones_like(mask) if prefill else mask


@pytest.fixture(scope="module", params=["bridge", "plain"])
def llama(request, tiny_chat):
    if request.param == "plain":
        return tiny_causal_lm("llama")
    return tiny_bridge("llama", tiny_chat.tokenizer)


PLACED = "each block's edit writes its tokens and no others"


@pytest.mark.parametrize(
    ("where", "broken", "first_failed"),
    [
        ("hooked", swallowed, PLACED),
        ("hooked", one_block_early, PLACED),
        ("PositionTracker", wrong_mask(row_zero_only), PLACED),
        ("PositionTracker", wrong_mask(also_the_first_token), PLACED),
        ("PositionTracker", wrong_mask(pad_tokens_too), PLACED),
        ("PositionTracker", wrong_mask(prefill_only), "none at any step of cached decoding"),
    ],
)
def test_a_planted_breakage_is_named(llama, tiny_chat, monkeypatch, where, broken, first_failed):
    monkeypatch.setattr(STEERING, where, broken)
    certificate = certify(llama, tiny_chat, layers=[1], batch=3)
    failed = [c.check for c in certificate.checks if not c.passed]
    assert failed[0] == first_failed
    assert "NO" in certificate.table()
    with pytest.raises(SteeringError, match=f"failed its certificate: {first_failed}"):
        certificate.require()
    with pytest.raises(SteeringError, match="failed its certificate"):
        certify(llama, tiny_chat, layers=[1], batch=3, check=True)


def by_the_old_name(checked):
    """A tracker that finds the cache as `past_key_values` alone, with or without its own check."""

    class Broken(PositionTracker):
        def _before_forward(self, module, args, kwargs):
            hidden = {k: v for k, v in kwargs.items() if k not in ("store", "position_ids")}
            hidden.pop("attention_mask", None)
            super()._before_forward(module, args, hidden)

        def _after_forward(self, output):
            if checked:
                super()._after_forward(output)

    return Broken


@pytest.mark.parametrize(("bridged", "checked"), [(True, False), (False, True), (False, False)])
def test_a_cache_under_an_unknown_name_fails_in_the_models_own_generation(
    tiny_chat, monkeypatch, bridged, checked
):
    """Steps of the certificate's own would not see it: they hand the cache on by the name known."""
    model = tiny_bridge("llama", tiny_chat.tokenizer) if bridged else tiny_causal_lm("llama")
    with_cache_named(model.original_model if bridged else model, "store")
    assert certify(model, tiny_chat, layers=[1], batch=3).passed
    monkeypatch.setattr(STEERING, "PositionTracker", by_the_old_name(checked))
    failed = {
        c.check for c in certify(model, tiny_chat, layers=[1], batch=3).checks if not c.passed
    }
    path = "hf_generate" if bridged else "generate"
    assert {
        f"every pass of `{path}` wrote all its tokens",
        f"no projection is left at any step of `{path}`",
        f"`{path}` takes the tokens of passes without a cache",
    } <= failed


def test_a_write_that_is_not_what_reaches_the_stream_fails(tiny_chat, monkeypatch):
    from dataclasses import replace

    import persona.models.hooks

    found = persona.models.hooks.block_writes

    def unscaled(model):
        return [
            replace(w, mlp=replace(w.mlp, site=replace(w.mlp.site, scale=1.0)))
            for w in found(model)
        ]

    monkeypatch.setattr(persona.models.hooks, "block_writes", unscaled)
    checks = certify(tiny_causal_lm("granite"), tiny_chat, layers=[1], batch=3).checks
    assert [c.check for c in checks if not c.passed] == [
        "attention and MLP write the step of their block",
        "what an MLP is made to write reaches the stream",
    ]


def test_an_error_inside_a_check_is_a_failed_row(llama, tiny_chat, monkeypatch):
    @contextlib.contextmanager
    def never(model, hooks):
        yield

    monkeypatch.setattr(STEERING, "hooked", never)
    certificate = certify(llama, tiny_chat, layers=[1], batch=3)
    assert not certificate.passed
    assert json.loads(certificate.to_json())["checks"][0]["measured"] is None


def test_edits_that_mix_rows_or_do_nothing_are_not_certified(llama, tiny_chat):
    mixing = edits_at([resid_post(1)], lambda h: h + h.mean(0, keepdim=True), 16, "mixing")
    failed = [
        c.check for c in certify(llama, tiny_chat, edits=mixing, batch=3).checks if not c.passed
    ]
    assert "a batch of 3 is each text alone" in failed
    idle = edits_at([resid_post(1)], lambda h: h, 16, "idle")
    failed = [
        c.check for c in certify(llama, tiny_chat, edits=idle, batch=3).checks if not c.passed
    ]
    assert failed == ["edits without effect on what is predicted"]


def test_what_cannot_be_certified_is_refused(llama, tiny_chat):
    with pytest.raises(SteeringError, match="blocks 0 to 2"):
        certify(llama, tiny_chat, layers=[5])
    swept = edits_at([resid_post(1)], lambda h: h, 16, "sweep", rows=3)
    with pytest.raises(SteeringError, match="one coefficient for all rows"):
        certify(llama, tiny_chat, edits=swept)

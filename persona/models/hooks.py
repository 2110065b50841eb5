"""Hooks on a bridge or a plain Hugging Face model: names checked, added in order, removed exactly.

transformer-lens 3.9 ignores unknown hook names in silence, and its own context manager rebuilds
the table of hook names for every hook (11 ms each on the default model); here the table is read
once per bridge and each hook is one torch handle.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from persona.errors import ModelError
from persona.models.sites import Hook as Hook
from persona.models.sites import Site, decoder_blocks, residual_sites
from persona.models.writes import Part, block_writes, measuring

_WRITES: dict[str, Part] = {"hook_attn_out": "attention", "hook_mlp_out": "mlp"}

InContext = Callable[[Any], contextlib.AbstractContextManager[Any]]
"""model -> context manager: while it is open, the model is edited. See `steering.steer`."""

_tables: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
_under_hooks: list[Any] = []


@dataclass(frozen=True)
class WriteOf:
    """What attention or MLP of a block adds to the residual stream; its place is measured."""

    layer: int
    part: Part

    def place(self, model: Any) -> Site:
        """Raises: ModelError where the block does not write in two parts that can be told."""
        return block_writes(model)[self.layer].of(self.part, self.layer).site


def hook_points(model: Any) -> dict[str, Any]:
    """Hook name -> hook point of a bridge, or site of a plain Hugging Face model.

    Aliases such as blocks.0.hook_resid_post are included. `hook_attn_out` and `hook_mlp_out` are
    a `WriteOf` on both: what reaches the residual stream, after any norm or multiplier.
    """
    if model not in _tables:
        table: dict[str, Any] = {}
        table |= dict(model.hook_dict) if is_bridge(model) else residual_sites(model)
        for layer in range(n_layers(model)):
            for name, part in _WRITES.items():
                table[f"blocks.{layer}.{name}"] = WriteOf(layer, part)
        _tables[model] = table
    return _tables[model]


@contextlib.contextmanager
def hooked(model: Any, hooks: Sequence[tuple[str, Hook]]) -> Iterator[None]:
    """Call each hook with the activation at its name, in order, while the block is open.

    A hook returns the activation to use in place of the one it was given, or None to leave it.
    Raises: ModelError for a name the model does not have, or a write that cannot be told, before
        any hook is added.
    """
    table = hook_points(model)
    for name, _ in hooks:
        if name not in table:
            raise ModelError(
                f"the model has no hook {name!r}; it has blocks 0 to {n_layers(model) - 1}, "
                "for instance blocks.0.hook_resid_post"
            )
    places = [table[name] for name, _ in hooks]
    places = [p.place(model) if isinstance(p, WriteOf) else p for p in places]
    handles = []
    _under_hooks.append(model)
    try:
        for place, (_, hook) in zip(places, hooks, strict=True):
            if isinstance(place, Site):
                handles.append(place.register(_unless_measuring(hook)))
            else:
                handles.append(place.register_forward_hook(_as_torch_hook(hook)))
        yield
    finally:
        _under_hooks.remove(model)
        for handle in handles:
            handle.remove()


def is_hooked(model: Any) -> bool:
    """Whether a block of `hooked`, or of `steer`, is open on the model or on what it wraps."""
    return any(hf_model(one) is hf_model(model) for one in _under_hooks)


def _as_torch_hook(hook: Hook) -> Any:
    def call(module: Any, args: Any, output: Tensor) -> Tensor | None:
        return None if measuring() else hook(output)

    return call


def _unless_measuring(hook: Hook) -> Hook:
    return lambda activation: None if measuring() else hook(activation)


def is_bridge(model: Any) -> bool:
    """Whether this is a TransformerBridge and no plain Hugging Face model."""
    # Asked of the class: a bridge's own property collects all its hooks each time it is read.
    return hasattr(type(model), "hook_dict")


def hf_model(model: Any) -> Any:
    """The Hugging Face model under a bridge; a plain one itself."""
    return model.original_model if is_bridge(model) else model


def is_compiled(hf_model: Any) -> bool:
    """Whether torch.compile is in the model, as a wrapper or in place."""
    return hasattr(hf_model, "_orig_mod") or any(
        getattr(module, "_compiled_call_impl", None) is not None for module in hf_model.modules()
    )


def accepted_by(model: Any) -> frozenset[str]:
    """What the forward pass of the Hugging Face model takes; PEFT hands on whatever it is given."""
    plain = hf_model(model)
    plain = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
    return frozenset(inspect.signature(plain.forward).parameters)


def model_device(model: Any) -> torch.device:
    """The device that token ids must be on."""
    return next(hf_model(model).parameters()).device


def n_layers(model: Any) -> int:
    """How many blocks the model has."""
    return int(model.cfg.n_layers) if is_bridge(model) else len(decoder_blocks(model))


def model_width(model: Any) -> int:
    """d_model: the length of the residual vector."""
    if is_bridge(model):
        return int(model.cfg.d_model)
    if not hasattr(model, "config"):
        raise ModelError(
            f"a {type(model).__name__} is no model that can be read; pass a TransformerBridge, a "
            "Hugging Face causal LM or a PeftModel"
        )
    return int(model.config.get_text_config().hidden_size)


def resid_post(layer: int) -> str:
    """Hook name of the residual stream after block `layer` (0-based)."""
    return f"blocks.{layer}.hook_resid_post"


def padding_id(model: Any) -> int:
    """What padded places hold; under causal attention no real token sees them."""
    for known in (getattr(model, "tokenizer", None), hf_model(model).config.get_text_config()):
        pad_id = getattr(known, "pad_token_id", None)
        if isinstance(pad_id, int) and pad_id >= 0:
            return pad_id
    return 0

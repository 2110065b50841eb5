"""Running only the upper blocks: reuse of what lies below the first edited block.

Many interventions on one text share every activation below the block they edit. The residual
stream there is recorded once; the blocks below are then passed over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from persona.models.hooks import Hook, hooked, is_bridge, model_device
from persona.models.sites import decoder_blocks

_gives_tuples: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


@contextlib.contextmanager
def recording_inputs(model: Any, layers: set[int]) -> Iterator[dict[int, Tensor]]:
    """While open, forward passes leave the input of each block in `layers` in the dict yielded."""
    inputs: dict[int, Tensor] = {}

    def record(layer: int) -> Hook:
        def hook(resid: Tensor) -> None:
            inputs[layer] = resid.detach()

        return hook

    with hooked(model, [(f"blocks.{layer}.hook_in", record(layer)) for layer in layers]):
        yield inputs


@contextlib.contextmanager
def starting_at(model: Any, layer: int, resid: Tensor) -> Iterator[None]:
    """While open, forward passes skip the blocks below `layer`, whose input is then `resid`.

    The pass must be of the same token ids as the recording. Hooks inside of skipped blocks do not
    fire. No model has a `start_at_layer`; shadowing `forward` on the skipped blocks leaves rotary
    embeddings, masks and everything above to the model's own code.
    """
    blocks = list(model.blocks) if is_bridge(model) else decoder_blocks(model)
    given = (resid,) if _gives_tuple(model) else resid
    before = [(block, vars(block).get("forward")) for block in blocks[:layer]]
    try:
        for block, _ in before:
            # Past the bridge's own __setattr__, which would overwrite the wrapped module's
            # forward for good; an instance attribute shadows the method.
            object.__setattr__(block, "forward", lambda *args, **kwargs: given)
        yield
    finally:
        for block, own in before:
            if own is not None:
                object.__setattr__(block, "forward", own)
            elif "forward" in vars(block):
                object.__delattr__(block, "forward")


def _gives_tuple(model: Any) -> bool:
    """Whether a block's output is the first of several: asked of a plain model, on one token."""
    if is_bridge(model):
        return False
    if model not in _gives_tuples:
        seen: list[bool] = []
        handle = decoder_blocks(model)[0].register_forward_hook(
            lambda module, args, output: seen.append(isinstance(output, tuple))
        )
        try:
            with torch.no_grad():
                model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model_device(model)))
        finally:
            handle.remove()
        _gives_tuples[model] = seen[0]
    return _gives_tuples[model]

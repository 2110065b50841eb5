"""Running only the upper blocks: reuse of what lies below the first edited block.

Many interventions on one text share every activation below the block they edit. The residual
stream there is recorded once; the blocks below are then passed over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from persona.models.hooks import Hook, hooked


@contextlib.contextmanager
def recording_inputs(bridge: Any, layers: set[int]) -> Iterator[dict[int, Tensor]]:
    """While open, forward passes leave the input of each block in `layers` in the dict yielded."""
    inputs: dict[int, Tensor] = {}

    def record(layer: int) -> Hook:
        def hook(resid: Tensor) -> None:
            inputs[layer] = resid.detach()

        return hook

    with hooked(bridge, [(f"blocks.{layer}.hook_in", record(layer)) for layer in layers]):
        yield inputs


@contextlib.contextmanager
def starting_at(bridge: Any, layer: int, resid: Tensor) -> Iterator[None]:
    """While open, forward passes skip the blocks below `layer`, whose input is then `resid`.

    The pass must be of the same token ids as the recording. Hooks of skipped blocks do not fire.
    TransformerBridge has no `start_at_layer`; shadowing `forward` on the skipped blocks leaves
    rotary embeddings, masks and everything above to the model's own code.
    """
    skipped = list(bridge.blocks)[:layer]
    try:
        for block in skipped:
            # Past the bridge's own __setattr__, which would overwrite the wrapped module's
            # forward for good; an instance attribute shadows the method and is deleted below.
            object.__setattr__(block, "forward", _return_resid(resid))
        yield
    finally:
        for block in skipped:
            if "forward" in vars(block):
                object.__delattr__(block, "forward")


def _return_resid(resid: Tensor) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Tensor:
        return resid

    return forward

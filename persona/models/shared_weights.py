"""One copy of a model's weights under several fine-tunes of it."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn

from persona.models.adapters.adapter_files import read_adapter_header
from persona.models.precision import Placement
from persona.models.sources import Source

if TYPE_CHECKING:
    from persona.models.pair import ModelPair


def over_the_same_weights(model: nn.Module) -> Any:
    """A copy of a model with modules and parameters of its own, over the memory of the first.

    Hooks, adapters and merges of one do not reach the other. Whatever writes into a weight's memory
    reaches both.
    """
    own = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, own)


def can_be_shared(placement: Placement) -> bool:
    """Whether weights held so are plain tensors, which nothing else moves about."""
    return placement.weights is None and not placement.spread


def beside(
    pair: ModelPair | None, base: Source, tuned: Source, placement: Placement
) -> tuple[Any, Any] | None:
    """The aligned model over the weights that a pair holds, and its tokenizer.

    None where the pair is of another model, holds it otherwise, or the fine-tune may write into
    what it is put on.
    """
    if pair is None or pair.bare is None or tuned.kind != "adapter":
        return None
    held = (pair.files("aligned"), pair.dtype, pair.device)
    wanted = (f"{base.revision} {base.fingerprint}".strip(), placement.dtype, placement.device)
    if held != wanted or not can_be_shared(placement):
        return None
    if not read_adapter_header(tuned).only_adds:
        return None
    return over_the_same_weights(pair.bare), copy.deepcopy(pair.tokenizer)

"""How a pair opens a side: an adapter switched, two models held, or one loaded after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

from persona.models.pair import OpenSide, Side


def adapter_sides(peft_model: Any, bridge: Any) -> OpenSide:
    """One bridge over one copy of the weights, whose adapter is off for the aligned side."""

    @contextlib.contextmanager
    def open_side(side: Side) -> Iterator[Any]:
        with peft_model.disable_adapter() if side == "aligned" else contextlib.nullcontext():
            # PEFT marks adapters trainable again whenever they are switched back on.
            peft_model.requires_grad_(False)
            yield bridge

    return open_side


def two_sides(aligned: Any, finetuned: Any) -> OpenSide:
    """Two bridges, both held in memory."""

    @contextlib.contextmanager
    def open_side(side: Side) -> Iterator[Any]:
        yield aligned if side == "aligned" else finetuned

    return open_side


def sides_in_turn(load: Callable[[Side], Any], first_side: Side, first: Any) -> OpenSide:
    """One bridge at a time: asking for the other side frees this one and loads that.

    first: the bridge of `first_side`, which is loaded already.
    """
    held: dict[Side, Any] = {first_side: first}

    @contextlib.contextmanager
    def open_side(side: Side) -> Iterator[Any]:
        if side not in held:
            for bridge in held.values():
                # A caller may still hold the bridge; without storage it costs nothing, and any
                # use of it fails at once.
                bridge.to("meta")
            held.clear()
            held[side] = load(side)
        yield held[side]

    return open_side


def weight_bytes(model: torch.nn.Module) -> int:
    """Memory that the parameters of a model take."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on a device, in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)

"""How a pair opens a side: an adapter switched, two sets of weights held, or one model loaded
after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import torch

from persona.errors import ModelError
from persona.models.pair import OpenSide, Side
from persona.models.precision import Placement


def adapter_sides(peft_model: Any, bridge: Any) -> OpenSide:
    """One bridge over one copy of the weights, whose adapter is off for the aligned side."""

    @contextlib.contextmanager
    def open_side(side: Side) -> Iterator[Any]:
        with peft_model.disable_adapter() if side == "aligned" else contextlib.nullcontext():
            # PEFT marks adapters trainable again whenever they are switched back on.
            peft_model.requires_grad_(False)
            yield bridge

    return open_side


def merged_sides(peft_model: Any, bridge: Any) -> OpenSide:
    """One bridge and two copies of the adapted weights: as they were, and with the adapter in them.

    A fine-tuned pass then costs what an aligned one does. Both copies are kept, since an adapter
    subtracted again would leave rounding errors behind. What the adapter leaves alone is there
    once; a head tied to an adapted embedding must have been untied, see `untie`.
    """
    weights = _adapted_weights(peft_model)
    held: dict[Side, list[torch.Tensor]] = {"aligned": [weight.data for weight in weights]}
    for weight in weights:
        weight.data = weight.data.clone()
    peft_model.merge_adapter()
    peft_model.requires_grad_(False)
    held["finetuned"] = [weight.data for weight in weights]

    @contextlib.contextmanager
    def open_side(side: Side) -> Iterator[Any]:
        # PEFT thinks the adapter merged all the time, so its layers run the weight they find.
        for weight, data in zip(weights, held[side], strict=True):
            weight.data = data
        yield bridge

    return open_side


def can_be_merged(peft_model: Any) -> bool:
    """Whether the adapter is made of changes to weights by LoRA, and of no more."""
    from peft.tuners.lora.layer import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    modules = list(peft_model.modules())
    layers = [layer for layer in modules if isinstance(layer, BaseTunerLayer)]
    only_weights = all(
        isinstance(layer, LoraLayer) and not any(layer.lora_bias.values()) for layer in layers
    )
    beside = any(isinstance(module, AuxiliaryTrainingWrapper) for module in modules)
    return bool(layers) and only_weights and not beside


def adapted_bytes(peft_model: Any) -> int:
    """Memory of the weights that an adapter changes: what a second copy of them takes."""
    return sum(weight.nbytes for weight in _adapted_weights(peft_model))


def _adapted_weights(peft_model: Any) -> list[torch.nn.Parameter]:
    """The base weights under LoRA: of linear layers, embeddings, and of stacked experts."""
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    weights = [
        layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight
        for layer in peft_model.modules()
        if isinstance(layer, LoraLayer)
    ]
    return list(dict.fromkeys(weights))


def one_at_a_time(open_side: OpenSide) -> OpenSide:
    """The sides of a pair that are one model at heart: while one is open the other is refused."""
    opened: list[Side] = []

    @contextlib.contextmanager
    def guarded(side: Side) -> Iterator[Any]:
        if other := next((one for one in opened if one != side), None):
            raise ModelError(
                f"the {other} side is open, and this pair holds one side at a time; "
                f"leave it before the {side} side is opened"
            )
        opened.append(side)
        try:
            with open_side(side) as bridge:
                yield bridge
        finally:
            opened.remove(side)

    return guarded


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
                free_weights(bridge)
            held.clear()
            held[side] = load(side)
        yield held[side]

    return open_side


def free_weights(bridge: torch.nn.Module) -> None:
    """A caller may still hold the model; empty it costs nothing, and any use fails at once.

    Tensor by tensor, since quantised weights refuse to be moved.
    """
    for tensor in (*bridge.parameters(), *bridge.buffers()):
        tensor.data = tensor.data.new_empty(0)


def weight_bytes(model: torch.nn.Module) -> int:
    """Memory that the parameters of a model take."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def free_bytes(placement: Placement) -> int:
    """Memory that can still be taken where a model is placed, in bytes."""
    if placement.spread:
        cards = range(torch.cuda.device_count())
        return sum(int(torch.cuda.mem_get_info(card)[0]) for card in cards)
    if placement.device.type == "cuda":
        return int(torch.cuda.mem_get_info(placement.device)[0])
    return int(psutil.virtual_memory().available)

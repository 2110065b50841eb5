"""What a fine-tune's change of weights writes: the singular directions of the difference.

Every module that writes to the residual stream is a linear map onto it. The largest left singular
vectors of (fine-tuned - aligned) map are the directions along which the fine-tune writes most that
is new, whatever it reads. Maps are found by running the module on the unit vectors, so adapters of
any kind, full fine-tunes and packed weights are read alike.

Shapes: I input of the module, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import ModelError
from persona.models.hooks import is_bridge, model_device
from persona.models.pair import SIDES, ModelPair
from persona.models.sites import decoder_blocks
from persona.models.writes import Part, block_writes
from persona.progress import progress

PARTS: tuple[Part, Part] = ("attention", "mlp")
NOTHING = 1e-6
"""A change of less than this share of the map it changes is rounding."""


@dataclass(frozen=True)
class WrittenDirection:
    """One left singular vector of a change of weights.

    part: which write of block `layer`. value: its singular value. share: of the change's squared
        Frobenius norm. vector: [D], unit length; its sign means nothing.
    """

    layer: int
    part: Part
    value: float
    share: float
    vector: Float[Tensor, " d_model"]


def written_directions(
    pair: ModelPair, layers: Sequence[int] | None = None, *, per_write: int = 1, n: int = 5
) -> list[WrittenDirection]:
    """The n largest singular directions of what the fine-tune changed, over blocks and parts.

    layers: default all. per_write: so many of each module at most. Empty where no module that
    writes to the stream was changed.
    Raises: ModelError for a block whose writes cannot be told.
    """
    wanted = list(range(pair.n_layers)) if layers is None else list(layers)
    maps: dict[str, dict[tuple[int, Part], Tensor]] = {}
    for side in SIDES:
        with pair.active(side) as model:
            maps[side] = {
                (layer, part): written_map(model, layer, part)
                for layer in progress(wanted, f"Reading what the weights write ({side})")
                for part in PARTS
            }
    found: list[WrittenDirection] = []
    for (layer, part), before in maps["aligned"].items():
        change = maps["finetuned"][layer, part] - before
        if float(change.norm()) <= NOTHING * float(before.norm()):
            continue
        left, values, _ = torch.linalg.svd(change, full_matrices=False)
        whole = float(values.pow(2).sum())
        found += [
            WrittenDirection(
                layer, part, float(values[i]), float(values[i] ** 2) / whole, left[:, i].clone()
            )
            for i in range(min(per_write, len(values)))
        ]
    return sorted(found, key=lambda one: one.value, reverse=True)[:n]


@torch.no_grad()
def written_map(model: Any, layer: int, part: Part) -> Float[Tensor, "d_model input"]:
    """The linear map of the last module of a write, float32 on the CPU, in residual units.

    A norm behind the module is not part of it.
    Raises: ModelError where the write is not made by one linear module, as experts' are not.
    """
    write = block_writes(model)[layer].of(part, layer)
    block = list(model.blocks)[layer] if is_bridge(model) else decoder_blocks(model)[layer]
    module = _last_linear(block, write.made_by)
    if module is None:
        raise ModelError(
            f"what the {part} of block {layer} ({type(block).__name__}) writes is not made by one "
            "linear module, so its change of weights has no singular directions that can be read"
        )
    weight = next(p for p in module.parameters() if p.is_floating_point() or p.ndim)
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    n_inputs = getattr(module, "in_features", None) or int(module.weight.shape[0])  # Conv1D
    units = torch.eye(int(n_inputs), device=model_device(model), dtype=dtype)[None]
    out: Tensor = module(units) - module(torch.zeros_like(units[:, :1]))
    return (out[0].float().T * write.site.scale).contiguous().cpu()


def _last_linear(block: Any, made_by: Sequence[str]) -> Any | None:
    """The innermost linear module whose output the write is.

    The base layer within an adapter is not: it lacks what the adapter adds.
    """
    found = [block.get_submodule(name) for name in made_by if "base_layer" not in name]
    linear = [m for m in found if hasattr(m, "in_features") or type(m).__name__ == "Conv1D"]
    return linear[-1] if linear else None

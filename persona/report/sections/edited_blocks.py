"""The edited blocks and how stable the direction is at each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona.report.wording import UNDEFINED, as_float, cleaned, number


@dataclass(frozen=True)
class ChosenBlock:
    """One edited block."""

    layer: int
    hook_name: str
    norm: str
    split_half_cosine: str


def chosen_blocks(direction: Mapping[str, Any]) -> list[ChosenBlock]:
    """Block by block: its hook, the distance between the means, the split-half cosine."""
    layers = list(direction.get("layers") or [])

    def at(field: str, i: int) -> Any:
        """Lists go with the layers; a single value holds for all of them."""
        values = direction.get(field)
        if isinstance(values, Mapping):
            return values.get(str(layers[i]), values.get(layers[i]))
        if isinstance(values, Sequence) and not isinstance(values, str):
            return values[i] if i < len(values) else None
        return values

    return [
        ChosenBlock(
            int(layer),
            cleaned(at("hook_names", i) or ""),
            number(at("norms", i)),
            number(at("split_half_cosine", i)),
        )
        for i, layer in enumerate(layers)
    ]


def chance_cosine(rank: Any, d_model: Any) -> str:
    """Split-half cosine of two random subspaces, about sqrt(rank / d_model)."""
    known, width = as_float(rank), as_float(d_model)
    return number((known / width) ** 0.5) if known and width else UNDEFINED


def cosine_range(found: Sequence[ChosenBlock]) -> str:
    """The range of the split-half cosine over the chosen blocks."""
    known = [block.split_half_cosine for block in found if block.split_half_cosine != UNDEFINED]
    if not known:
        return UNDEFINED
    ends = sorted(known, key=lambda text: float(text.replace("\u2212", "-")))
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"

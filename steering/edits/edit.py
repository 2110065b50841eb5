"""An edit: one intervention at one hook, and what a list of them must satisfy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from persona.directions.direction import orthonormal
from persona.errors import DataError, SpaceMismatchError, SteeringError
from persona.models.space import ActivationSpace
from steering.edits.interventions import Intervention

Kind = Literal["adds", "sets"]


@dataclass(frozen=True)
class Edit:
    """An intervention at one hook: `apply` maps activations [..., d_model] to activations.

    hook_name, layer: where; `*` in the name is every block of the model that is steered, and then
        the layer is the first of them, 0.
    kind: whether it adds to the activation or sets coordinates of it (ablate, restore, cap, ...).
        Two edits of one list that set coordinates along overlapping `basis` at one hook undo each
        other, and are refused.
    basis: the orthonormal rows [rank d_model] it moves along; None where that is not known.
    rows: how many rows the batch must have, where every row has a coefficient of its own.
    space: the activation space the vectors came from; None where it is not known.
    """

    hook_name: str
    layer: int
    d_model: int
    apply: Intervention
    label: str
    kind: Kind = "adds"
    basis: Tensor | None = None
    rows: int | None = None
    space: ActivationSpace | None = None


class Placed:
    """Tensors that move to a device once, and not in every pass of the model.

    One model may ask for several devices: spread over cards, each block is somewhere else. A number
    among them, such as a coefficient that is no tensor, stays what it is.
    """

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self._on: dict[torch.device, tuple[Any, ...]] = {}

    def on(self, device: torch.device) -> tuple[Any, ...]:
        """The parts, in their order, on this device."""
        if device not in self._on:
            self._on[device] = tuple(
                part.to(device) if isinstance(part, Tensor) else part for part in self.parts
            )
        return self._on[device]

    def __reduce__(self) -> tuple[type[Placed], tuple[Any, ...]]:
        return Placed, self.parts  # another process has other devices


def orthonormal_rows(vectors: Tensor) -> Tensor:
    """Orthonormal rows [rank d_model] of the span of [d_model] or [rank d_model] vectors.

    Raises: SteeringError where they are zero, not finite, or dependent on each other.
    """
    rows = vectors[None] if vectors.ndim == 1 else vectors
    if rows.ndim != 2 or not rows.isfinite().all() or not rows.any(dim=1).all():
        raise SteeringError(
            f"vectors to steer along must be finite and non-zero, [d_model] or [rank d_model]; "
            f"got shape {tuple(vectors.shape)} with norms {rows.norm(dim=-1).flatten().tolist()}"
        )
    try:
        return orthonormal(rows)
    except DataError as error:
        raise SteeringError(str(error)) from error


def require_finite(value: float | Tensor, what: str = "a coefficient") -> None:
    """Raise SteeringError unless the number, or every number of the tensor, is finite."""
    if not bool(torch.as_tensor(value).isfinite().all()):
        raise SteeringError(f"{what} must be a finite number; got {value}")


def require_coefficient(value: float | Tensor) -> None:
    """Raise SteeringError unless this is one finite number, or one for each row."""
    require_finite(value)
    if isinstance(value, Tensor) and (value.ndim != 1 or not len(value)):
        raise SteeringError(
            f"a coefficient is a number or a tensor [rows]; got shape {tuple(value.shape)}"
        )


def require_levels(levels: Sequence[float | Tensor], rank: int) -> int | None:
    """For how many rows of a batch these targets or thresholds are; None for any number.

    Raises: SteeringError for one that is not finite, of another shape than [rows rank] (either
    may be 1), or for tables of different numbers of rows.
    """
    counts = set()
    for level in levels:
        require_finite(level, "a level")
        if isinstance(level, Tensor):
            if level.ndim != 2 or not len(level) or level.shape[1] not in (1, rank):
                raise SteeringError(
                    f"a level along {rank} directions is a number or a table [rows {rank}], of "
                    f"which either side may be 1; got shape {tuple(level.shape)}"
                )
            counts |= {len(level)} - {1}
    if len(counts) > 1:
        raise SteeringError(f"the levels are for different numbers of rows: {sorted(counts)}")
    return counts.pop() if counts else None


def require_no_conflict(edits: Sequence[Edit]) -> None:
    """Raise SteeringError where two edits set overlapping coordinates at one hook.

    The second undoes the first, whatever their order; edits that add compose in the order given.
    """
    setting = [edit for edit in edits if edit.kind == "sets" and edit.basis is not None]
    for place, later in enumerate(setting):
        for earlier in setting[:place]:
            if _canonical(earlier.hook_name) != _canonical(later.hook_name):
                continue
            assert earlier.basis is not None and later.basis is not None
            overlap = float((earlier.basis @ later.basis.to(earlier.basis).T).abs().max())
            if overlap > 1e-4:
                raise SteeringError(
                    f"'{earlier.label}' and '{later.label}' both set coordinates at "
                    f"{later.hook_name} along directions with cosine {overlap:.2f}: one undoes the "
                    "other. Leave one out, or nest two steer blocks to say which comes last"
                )


def require_one_model(edits: Sequence[Edit], space: ActivationSpace | None) -> None:
    """Raise SteeringError unless all edits belong to one model, and to that of `space`."""
    spaces = [s for s in (space, *(edit.space for edit in edits)) if s is not None]
    for other in spaces[1:]:
        try:
            other.require_same_model(spaces[0])
        except SpaceMismatchError as error:
            raise SteeringError(str(error)) from error


def _canonical(hook_name: str) -> str:
    """One name for one place: what goes into a block is what came out of the one below."""
    names = {"hook_out": "hook_resid_post", "hook_in": "hook_resid_pre"}
    block, _, name = hook_name.rpartition(".")
    name, layer = names.get(name, name), block.removeprefix("blocks.")
    if name == "hook_resid_pre" and layer.isdigit() and int(layer) > 0:
        return f"blocks.{int(layer) - 1}.hook_resid_post"
    return f"{block}.{name}"

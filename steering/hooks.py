"""`steer`: interventions at hooks of a bridge, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector, Subspace
from persona.errors import SteeringError
from persona.models.hooks import Hook, hook_points, hooked
from steering.interventions import ablate, add, restore
from steering.positions import PositionTracker


@dataclass(frozen=True)
class Edit:
    """An intervention at one hook: `apply` maps activations [..., d_model] to activations."""

    hook_name: str
    layer: int
    d_model: int
    apply: Callable[[Tensor], Tensor]
    label: str


def add_direction(direction: Direction, coefficient: float = 1.0) -> list[Edit]:
    """Add `coefficient` times the direction, norm included, at its own hook."""
    _require_finite(coefficient)
    vector = direction.vector
    return [_edit(direction.space, lambda h: add(h, vector.to(h.device), coefficient), "add")]


def ablate_to_zero(vector: PersonaVector, coefficient: float = 1.0) -> list[Edit]:
    """Set the projection on each block's subspace to zero."""
    _require_finite(coefficient)
    return [_ablation(subspace, coefficient) for subspace in _in_order(vector)]


def restore_to_aligned(vector: PersonaVector, coefficient: float | None = None) -> list[Edit]:
    """Move each block's projection toward the aligned model's mean.

    coefficient: default the vector's own. 1 sets the projection to the mean, 0 changes nothing.
    """
    factor = vector.coefficient if coefficient is None else coefficient
    _require_finite(factor)
    return [_restoration(s, s.aligned_mean, factor) for s in _in_order(vector)]


def restore_to_finetuned(vector: PersonaVector, coefficient: float | None = None) -> list[Edit]:
    """Move each block's projection toward the fine-tuned model's mean: the mirror, to induce."""
    factor = vector.coefficient if coefficient is None else coefficient
    _require_finite(factor)
    return [_restoration(s, s.finetuned_mean, factor) for s in _in_order(vector)]


@dataclass
class Steering:
    """What happened while steering: how often each edit fired and how many tokens it wrote."""

    edits: list[Edit]
    passes: list[int]
    tokens: list[int]


@contextlib.contextmanager
def steer(
    bridge: Any,
    edits: Sequence[Edit],
    *,
    positions: str = "all",
    response_start: Sequence[int] | None = None,
    first_token: bool = False,
) -> Iterator[Steering]:
    """Apply `edits`, in order, to every forward pass of `bridge` while the block is open.

    Works under forward, cached and uncached generation, left or right padding, for every row;
    pad tokens are never written. See `PositionTracker` for `positions`, `response_start` and
    `first_token`.
    Raises: SteeringError before any pass for an unknown hook or a wrong width, and at the end
    when an edit never fired or never met a token to write. Hooks are removed on any exit.
    """
    edits = list(edits)
    if not edits:
        raise SteeringError("there is nothing to steer with: the list of edits is empty")
    known = hook_points(bridge)
    for edit in edits:
        if edit.hook_name not in known:
            raise SteeringError(
                f"the model has no hook {edit.hook_name!r} (it has {bridge.cfg.n_layers} blocks, "
                f"the last is blocks.{bridge.cfg.n_layers - 1}.hook_resid_post)"
            )
        if edit.d_model != bridge.cfg.d_model:
            raise SteeringError(
                f"the edit at {edit.hook_name} has d_model={edit.d_model} but the model has "
                f"d_model={bridge.cfg.d_model}. Extract a direction from this model"
            )
    tracker = PositionTracker(positions, response_start, first_token)
    record = Steering(edits, [0] * len(edits), [0] * len(edits))

    def hook_for(place: int) -> Hook:
        def hook(resid: Tensor) -> Tensor:
            mask = tracker.mask
            if mask is None or mask.shape != resid.shape[:2]:
                raise SteeringError(
                    f"{edits[place].hook_name} fired outside a pass of the model, or with shape "
                    f"{tuple(resid.shape)}; positions are not known there"
                )
            record.passes[place] += 1
            record.tokens[place] += tracker.n_tokens
            return torch.where(mask[..., None], edits[place].apply(resid), resid)

        return hook

    hooks = [(edit.hook_name, hook_for(place)) for place, edit in enumerate(edits)]
    with tracker.watching(bridge.original_model), hooked(bridge, hooks):
        yield record
    for edit, passes, tokens in zip(edits, record.passes, record.tokens, strict=True):
        if passes == 0 or tokens == 0:
            what = "never fired" if passes == 0 else "fired but met no token to write"
            raise SteeringError(
                f"the edit '{edit.label}' at {edit.hook_name} {what}: nothing was steered there. "
                "Run the model inside the with block, and check positions"
            )


def _in_order(vector: PersonaVector) -> list[Subspace]:
    return [vector.subspaces[layer] for layer in vector.layers]


def _ablation(subspace: Subspace, coefficient: float) -> Edit:
    def apply(resid: Tensor) -> Tensor:
        basis, reading = (rows.to(resid.device) for rows in (subspace.basis, subspace.reading))
        return ablate(resid, basis, coefficient, reading)

    return _edit(subspace.space, apply, "ablate")


def _restoration(subspace: Subspace, target: Tensor, coefficient: float) -> Edit:
    def apply(resid: Tensor) -> Tensor:
        basis, reading = (rows.to(resid.device) for rows in (subspace.basis, subspace.reading))
        return restore(resid, basis, target.to(resid.device), coefficient, reading)

    return _edit(subspace.space, apply, "restore")


def _edit(space: Any, apply: Callable[[Tensor], Tensor], label: str) -> Edit:
    return Edit(space.hook_name, space.layer, space.d_model, apply, label)


def _require_finite(coefficient: float) -> None:
    if coefficient != coefficient or coefficient in (float("inf"), float("-inf")):
        raise SteeringError(f"a coefficient must be a finite number; got {coefficient}")

"""What can be written to activations: plain functions from activations to activations.

resid is [..., d_model] and its first axis is the row of the batch; `basis` has orthonormal rows;
projections are computed in float32 and the result has resid's dtype. Nothing is edited in place.

A coefficient is one number, or one for each row, so that a dose sweep is a single batch. A target
or threshold is one number, or a table [rows rank] of which either side may be 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Intervention = Callable[[Tensor], Tensor]
Coefficient = float | Float[Tensor, " rows"]
Level = float | Float[Tensor, "rows_or_1 rank_or_1"]


def add(
    resid: Float[Tensor, "*batch d_model"],
    vector: Float[Tensor, " d_model"],
    coefficient: Coefficient,
) -> Float[Tensor, "*batch d_model"]:
    """resid + coefficient * vector. The vector keeps its norm: 1 adds the whole mean difference.

    Source: Turner et al. 2023 (activation addition); Chen et al. 2025.

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import add
        >>> add(torch.zeros(1, 2), torch.tensor([3.0, 4.0]), 0.5)
        tensor([[1.5000, 2.0000]])
    """
    if not isinstance(coefficient, Tensor):
        return resid + coefficient * vector.to(resid)
    return resid + _times(coefficient, vector.to(resid).expand_as(resid))


def ablate(
    resid: Float[Tensor, "*batch d_model"],
    basis: Float[Tensor, "rank d_model"],
    coefficient: Coefficient = 1.0,
    readout: Float[Tensor, "rank d_model"] | None = None,
) -> Float[Tensor, "*batch d_model"]:
    """Take `coefficient` of the coordinates on the orthonormal rows of `basis` away; 1 leaves zero.

    readout: rows that read the coordinates, default the basis (orthogonal projection).

    Source: Arditi et al. 2024. Zero is an arbitrary point: both classes often lie on one side of
    it, and then this pushes toward the trait. `restore` is the default elsewhere for that reason.

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import ablate
        >>> ablate(torch.tensor([[5.0, 7.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([[0., 7.]])
    """
    coordinates = project(resid, basis if readout is None else readout)
    return resid - _times(coefficient, _lift(coordinates, basis).to(resid))


def restore(
    resid: Float[Tensor, "*batch d_model"],
    basis: Float[Tensor, "rank d_model"],
    target: Float[Tensor, " rank"],
    coefficient: Coefficient = 1.0,
    readout: Float[Tensor, "rank d_model"] | None = None,
) -> Float[Tensor, "*batch d_model"]:
    """Move the coordinates on the orthonormal rows of `basis` toward `target`.

    resid + coefficient * (target - resid readout^T) basis: 1 sets the coordinates to the target
    (the other model's mean), 0 leaves everything, above 1 overshoots. readout: rows that read the
    coordinates, readout basis^T = 1; default the basis itself (orthogonal projection).

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import restore
        >>> restore(torch.tensor([[5.0, 7.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]))
        tensor([[2., 7.]])
    """
    gap = target.to(basis) - project(resid, basis if readout is None else readout)
    return resid + _times(coefficient, _lift(gap, basis).to(resid))


def mean_ablate(
    resid: Float[Tensor, "*batch d_model"],
    basis: Float[Tensor, "rank d_model"],
    mean: Float[Tensor, " d_model"],
    coefficient: Coefficient = 1.0,
) -> Float[Tensor, "*batch d_model"]:
    """Replace the coordinates by those of a mean activation: `restore` with target mean basis^T.

    Source: mean ablation, Wang et al. 2022; of a direction, Marshall et al. 2024.
    """
    return restore(resid, basis, project(mean, basis), coefficient)


def set_projection(
    resid: Float[Tensor, "*batch d_model"], basis: Float[Tensor, "rank d_model"], value: Level
) -> Float[Tensor, "*batch d_model"]:
    """Set every coordinate on the rows of `basis` to `value`, in residual-stream units.

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import set_projection
        >>> set_projection(torch.tensor([[5.0, 7.0]]), torch.tensor([[0.0, 1.0]]), -1.0)
        tensor([[ 5., -1.]])
    """
    coordinates = project(resid, basis)
    return resid + _lift(level_beside(value, coordinates) - coordinates, basis).to(resid)


def cap(
    resid: Float[Tensor, "*batch d_model"], basis: Float[Tensor, "rank d_model"], threshold: Level
) -> Float[Tensor, "*batch d_model"]:
    """Bring each coordinate above `threshold` down to it: h - max(h.v - threshold, 0) v.

    Source: Lu et al. 2026 (assistant axis).

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import cap
        >>> cap(torch.tensor([[5.0, 7.0], [1.0, 7.0]]), torch.tensor([[1.0, 0.0]]), 2.0)
        tensor([[2., 7.],
                [1., 7.]])
    """
    coordinates = project(resid, basis)
    excess = (coordinates - level_beside(threshold, coordinates)).clamp(min=0)
    return resid - _lift(excess, basis).to(resid)


def floor(
    resid: Float[Tensor, "*batch d_model"], basis: Float[Tensor, "rank d_model"], threshold: Level
) -> Float[Tensor, "*batch d_model"]:
    """Lift each coordinate below `threshold` up to it: h + max(threshold - h.v, 0) v."""
    coordinates = project(resid, basis)
    lack = (level_beside(threshold, coordinates) - coordinates).clamp(min=0)
    return resid + _lift(lack, basis).to(resid)


def clamp(
    resid: Float[Tensor, "*batch d_model"],
    basis: Float[Tensor, "rank d_model"],
    low: Level,
    high: Level,
) -> Float[Tensor, "*batch d_model"]:
    """Bring each coordinate into [low, high]; one that lies inside is left alone.

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import clamp
        >>> clamp(torch.tensor([[-5.0], [0.5], [5.0]]), torch.tensor([[1.0]]), -1.0, 1.0).tolist()
        [[-1.0], [0.5], [1.0]]
    """
    coordinates = project(resid, basis)
    lack = (level_beside(low, coordinates) - coordinates).clamp(min=0)
    excess = (coordinates - level_beside(high, coordinates)).clamp(min=0)
    return resid + _lift(lack - excess, basis).to(resid)


def norm_preserving(intervention: Intervention) -> Intervention:
    """The intervention, after which every token's residual is scaled back to the norm it had.

    A residual that the intervention makes zero stays zero.
    Source: the normalising option of repeng (Vogel 2024).

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import norm_preserving
        >>> steady = norm_preserving(lambda h: h + torch.tensor([4.0, 0.0]))
        >>> steady(torch.tensor([[0.0, 3.0]]))
        tensor([[2.4000, 1.8000]])
    """

    def apply(resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        edited = intervention(resid).float()
        norm = edited.norm(dim=-1, keepdim=True)
        before = resid.float().norm(dim=-1, keepdim=True)
        return (edited * torch.where(norm > 0, before / norm, 1.0)).to(resid)

    return apply


def where(
    fires: Callable[[Tensor], Bool[Tensor, "*place"]], intervention: Intervention
) -> Intervention:
    """The intervention where `fires` says so, row by row ([batch]) or token by token ([batch pos]).

    `fires` is shown the activation [batch pos d_model] before the edit, pad tokens included.
    Source: conditional activation steering, Lee et al. 2024 (CAST). differs: there one row
    decides for the whole batch.

    Examples:
        >>> import torch
        >>> from steering.edits.interventions import where
        >>> guarded = where(lambda h: h[..., 0] > 2, lambda h: h * 0)
        >>> guarded(torch.tensor([[[1.0, 1.0], [3.0, 1.0]]]))
        tensor([[[1., 1.],
                 [0., 0.]]])
    """

    def apply(resid: Float[Tensor, "batch *pos d_model"]) -> Float[Tensor, "batch *pos d_model"]:
        chosen = fires(resid)
        chosen = chosen.reshape(*chosen.shape, *[1] * (resid.ndim - chosen.ndim))
        return torch.where(chosen, intervention(resid), resid)

    return apply


def project(
    resid: Float[Tensor, "*batch d_model"], basis: Float[Tensor, "rank d_model"]
) -> Float[Tensor, "*batch rank"]:
    """Coordinates resid basis^T, float32."""
    # Not einops: its 25 microseconds a call are felt at every block of every decoded token.
    return resid.float() @ basis.float().T


def _lift(
    coordinates: Float[Tensor, "*batch rank"], basis: Float[Tensor, "rank d_model"]
) -> Float[Tensor, "*batch d_model"]:
    return coordinates @ basis.float()


def _times(coefficient: Coefficient, change: Tensor) -> Tensor:
    """coefficient * change [rows ...], each row rounded as it would be with its number alone."""
    if not isinstance(coefficient, Tensor):
        return coefficient * change
    # In float32, as torch multiplies a bfloat16 tensor by a number; then rounded once.
    by_row = coefficient.to(change.device, torch.float32).reshape(-1, *[1] * (change.ndim - 1))
    return (by_row * change).to(change.dtype)


def level_beside(level: Level, coordinates: Tensor) -> float | Tensor:
    """The level beside coordinates [rows ... rank]: a number, or [rows 1 ... rank]."""
    if not isinstance(level, Tensor):
        return level
    rows, rank = level.shape
    return level.to(coordinates).reshape(rows, *[1] * (coordinates.ndim - 2), rank)

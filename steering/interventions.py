"""What can be written to activations: plain functions from activations to activations.

resid is [..., d_model]; projections are computed in float32 and the result has resid's dtype.
Nothing is edited in place.
"""

from __future__ import annotations

from einops import einsum
from jaxtyping import Float
from torch import Tensor


def add(
    resid: Float[Tensor, "*batch d_model"], vector: Float[Tensor, " d_model"], coefficient: float
) -> Float[Tensor, "*batch d_model"]:
    """resid + coefficient * vector. The vector keeps its norm: 1 adds the whole mean difference.

    Source: Turner et al. 2023 (activation addition); Chen et al. 2025.
    """
    return resid + coefficient * vector.to(resid)


def ablate(
    resid: Float[Tensor, "*batch d_model"],
    basis: Float[Tensor, "rank d_model"],
    coefficient: float = 1.0,
    readout: Float[Tensor, "rank d_model"] | None = None,
) -> Float[Tensor, "*batch d_model"]:
    """Take `coefficient` of the coordinates on the orthonormal rows of `basis` away; 1 leaves zero.

    readout: rows that read the coordinates, default the basis (orthogonal projection).

    Source: Arditi et al. 2024. Zero is an arbitrary point: both classes often lie on one side of
    it, and then this pushes toward the trait. `restore` is the default elsewhere for that reason.
    """
    return resid - coefficient * _lift(
        project(resid, basis if readout is None else readout), basis
    ).to(resid)


def restore(
    resid: Float[Tensor, "*batch d_model"],
    basis: Float[Tensor, "rank d_model"],
    target: Float[Tensor, " rank"],
    coefficient: float = 1.0,
    readout: Float[Tensor, "rank d_model"] | None = None,
) -> Float[Tensor, "*batch d_model"]:
    """Move the coordinates on the orthonormal rows of `basis` toward `target`.

    resid + coefficient * (target - resid readout^T) basis: 1 sets the coordinates to the target
    (the other model's mean), 0 leaves everything, above 1 overshoots. readout: rows that read the
    coordinates, readout basis^T = 1; default the basis itself (orthogonal projection).
    """
    gap = target.to(basis) - project(resid, basis if readout is None else readout)
    return resid + coefficient * _lift(gap, basis).to(resid)


def project(
    resid: Float[Tensor, "*batch d_model"], basis: Float[Tensor, "rank d_model"]
) -> Float[Tensor, "*batch rank"]:
    """Coordinates resid basis^T, float32."""
    return einsum(resid.float(), basis, "... d_model, rank d_model -> ... rank")


def _lift(
    coordinates: Float[Tensor, "*batch rank"], basis: Float[Tensor, "rank d_model"]
) -> Float[Tensor, "*batch d_model"]:
    return einsum(coordinates, basis, "... rank, rank d_model -> ... d_model")

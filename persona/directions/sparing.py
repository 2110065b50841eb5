"""A reading of a direction that is blind to other directions, even where the two overlap."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import SHRINKAGE, shrunk, whitened_readout

LEAST_LEFT = 0.1
"""Share of a direction's squared whitened length that must lie outside of what is spared: below,
its coordinate would be read from next to nothing, and mostly be noise."""


def sparing_readout(
    basis: Float[Tensor, "rank d_model"],
    spared: Float[Tensor, "kept d_model"] | None,
    covariance: Float[Tensor, "d_model d_model"],
    shrinkage: float = SHRINKAGE,
) -> Float[Tensor, "rank d_model"]:
    """Rows R that read coordinates on `basis` and nothing along `spared`: R basis^T = 1,
    R spared^T = 0.

    Of all such rows those with the least noise: the whitened readout of both together, without the
    rows of `spared`. An edit along `basis` that reads with R moves what lies along `spared` not at
    all, although the two need not be orthogonal; a fine-tune that has written a persona p and a
    skill s is left with s, whatever their cosine.
    spared: orthonormal rows, what matters most first. As many of them count, from the first on, as
        leave `LEAST_LEFT` of every direction of the basis outside, which may be none. None spares
        nothing: the whitened readout.

    Source: Belrose et al. 2023 (LEACE), oblique projection. differs: a second subspace is in the
    kernel, as in the zero-forcing filters of array processing (Van Trees 2002, ch. 6.7).

    Examples:
        The direction and the skill have a cosine of 0.6; the skill is read as nothing:

        >>> import torch
        >>> from persona.directions.sparing import sparing_readout
        >>> persona, skill = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.6, 0.8, 0.0]])
        >>> sparing_readout(persona, skill, torch.eye(3), shrinkage=0.0)
        tensor([[ 1.0000, -0.7500,  0.0000]])
    """
    rows = torch.empty(0, basis.shape[1]) if spared is None else spared
    for kept in range(len(rows), 0, -1):
        if share_outside(basis, rows[:kept], covariance, shrinkage) >= LEAST_LEFT:
            both = torch.cat([basis, rows[:kept].to(basis)])
            return whitened_readout(both, covariance, shrinkage)[: len(basis)].contiguous()
    return whitened_readout(basis, covariance, shrinkage)


def share_outside(
    basis: Float[Tensor, "rank d_model"],
    spared: Float[Tensor, "kept d_model"],
    covariance: Float[Tensor, "d_model d_model"],
    shrinkage: float = SHRINKAGE,
) -> float:
    """Least share of a direction's squared length outside of `spared`, in whitened space, 0 to 1.

    Over all directions within the span of `basis`.
    """
    factor = torch.linalg.cholesky(shrunk(covariance, shrinkage))

    def whitened(rows: Tensor) -> Tensor:
        solved = torch.linalg.solve_triangular(factor, rows.to(factor).T, upper=False)
        return torch.linalg.qr(solved).Q

    cosines = torch.linalg.svdvals(whitened(basis).T @ whitened(spared))
    return float(1 - cosines.max().clamp(max=1) ** 2)

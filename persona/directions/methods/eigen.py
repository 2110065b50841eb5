"""Directions from attribution matrices S: restoring u changes the objective by -u^T S u.

Only the algebra is here; `steering.identification.attribution` makes the matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import orthonormal
from persona.errors import DataError


def eigendirections(
    matrix: Float[Tensor, "d_model d_model"], rank: int
) -> Float[Tensor, "rank d_model"]:
    """The `rank` eigenvectors of S with the largest eigenvalues, as orthonormal rows."""
    _, vectors = torch.linalg.eigh(matrix.double())
    return vectors.T.flip(0)[:rank].float().contiguous()


def shrunk_eigendirections(
    matrix: Float[Tensor, "d_model d_model"],
    covariance: Float[Tensor, "d_model d_model"],
    rank: int,
    shrinkage: float = 0.1,
) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows with the largest predicted effect for the variance they carry.

    They solve S v = lambda C v with C = (1 - s) covariance + s tr(covariance)/d_model 1: the ratio
    v^T S v / v^T C v instead of v^T S v / v^T v, so that a direction along which activations vary
    much for other reasons must earn it. s = 1 gives `eigendirections`. The solutions are
    orthogonal under C, not under 1; the rows are their Gram-Schmidt basis, in order, so the span of
    the first r is kept for every r.
    Raises: DataError for a shrinkage out of (0, 1] or a rank above d_model.
    """
    d_model = len(matrix)
    if not 0 < shrinkage <= 1:
        raise DataError(f"the shrinkage must be above 0 and at most 1; got {shrinkage}")
    if not 1 <= rank <= d_model:
        raise DataError(f"the rank must be 1 to d_model={d_model}; got {rank}")
    wide = covariance.double()
    even = wide.diagonal().mean() * torch.eye(d_model, dtype=torch.float64)
    if not even[0, 0] > 0:
        raise DataError("the covariance is zero or negative; it must be that of activations")
    factor = torch.linalg.cholesky((1 - shrinkage) * wide + shrinkage * even)
    half = torch.linalg.solve_triangular(factor, matrix.double(), upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.T, upper=False)
    _, vectors = torch.linalg.eigh((whitened + whitened.T) / 2)
    solutions = torch.linalg.solve_triangular(factor.T, vectors.flip(1)[:, :rank], upper=True)
    return orthonormal(solutions.T)


@dataclass(frozen=True)
class RankChoice:
    """How many eigendirections hold up on questions they were not made from.

    rank: 0 where not even the first does.
    gains: [max_rank], predicted fall of the objective by the k-th direction alone, mean over
        held-out folds, nats per token. standard_errors: of these means over the folds; the
        training sets of two folds overlap, so they are somewhat too small.
    """

    rank: int
    gains: Float[Tensor, " max_rank"]
    standard_errors: Float[Tensor, " max_rank"]


def cross_validated_rank(
    folds: Sequence[Float[Tensor, "d_model d_model"]],
    max_rank: int,
    *,
    n_errors: float = 1.0,
) -> RankChoice:
    """How many attribution eigendirections predict an effect on held-out questions.

    folds: S of disjoint sets of questions, of like size. For each fold the eigenvectors u_k of the
        mean of the others are scored by u_k^T S_held_out u_k, the predicted fall of the objective.
    n_errors: direction k is kept while its mean gain exceeds so many standard errors; the rank is
        the number kept before the first that is not.
    Raises: DataError below two folds, for matrices of several sizes or not finite, or a max_rank
        out of 1 .. d_model.
    """
    if len(folds) < 2:
        raise DataError(f"cross-validation needs at least 2 folds of questions; got {len(folds)}")
    shapes = {tuple(fold.shape) for fold in folds}
    d_model = len(folds[0])
    if shapes != {(d_model, d_model)}:
        raise DataError(f"every fold needs a square matrix of one size; got {sorted(shapes)}")
    if not all(fold.isfinite().all() for fold in folds):
        raise DataError("an attribution matrix is not finite; compute it in float32")
    if not 1 <= max_rank <= d_model:
        raise DataError(f"max_rank must be 1 to d_model={d_model}; got {max_rank}")
    total = torch.stack([fold.double() for fold in folds]).sum(0)
    gains = torch.stack([_held_out_gains(fold.double(), total, max_rank) for fold in folds])
    mean = gains.mean(0)
    error = gains.std(0) / len(folds) ** 0.5
    holds = (mean > n_errors * error).long()
    return RankChoice(int(holds.cumprod(0).sum()), mean.float(), error.float())


def _held_out_gains(
    fold: Float[Tensor, "d_model d_model"], total: Float[Tensor, "d_model d_model"], max_rank: int
) -> Float[Tensor, " max_rank"]:
    rows = eigendirections(total - fold, max_rank).double()
    return einsum(rows, fold, rows, "rank row, row column, rank column -> rank")

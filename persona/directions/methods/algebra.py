"""What the methods share: mean differences, leading directions, signs, all layers at once.

Sums run in float64; activations are float32, so what is smaller than `RESOLUTION` times their
length is rounding and no direction.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.errors import DataError

RESOLUTION = 1e-6


def class_difference(contrast: Contrast) -> Float[Tensor, "layer d_model"]:
    """Mean of the positive minus mean of the negative answers, each weighing one; float64.

    Raises: DataError at a layer where the means agree to float32 accuracy.
    """
    difference = _mean(contrast.positive) - _mean(contrast.negative)
    require_separation(difference, contrast)
    return difference


def require_separation(difference: Float[Tensor, "layer d_model"], contrast: Contrast) -> None:
    """Raise DataError, naming the layer, where a difference of class means is only rounding."""
    flat = difference.norm(dim=-1) <= RESOLUTION * typical_norm(contrast)
    if flat.any():
        layer = int(flat.nonzero()[0])
        kept = (~flat).nonzero()[:, 0].tolist()
        hint = f"use contrast.at({kept})" if kept else "these classes do not differ"
        raise DataError(
            f"both classes have the same mean at layer {layer}, so no direction leads from one to "
            f"the other; {hint}"
        )


def typical_norm(contrast: Contrast) -> Float[Tensor, " layer"]:
    """Root mean square length of the rows, by layer, in residual-stream units."""
    rows = torch.linalg.vector_norm(contrast.positive, dim=(0, 2), dtype=torch.float64)
    return rows / len(contrast.positive) ** 0.5


def require_rank_one(rank: int, method: str) -> None:
    """Raise DataError when more than one direction is asked of a method that has one."""
    require_positive_rank(rank)
    if rank != 1:
        raise DataError(
            f"{method} gives one direction; rank {rank} was asked. persona_subspace and "
            "paired_pca give more"
        )


def require_positive_rank(rank: int) -> None:
    if rank < 1:
        raise DataError(f"a rank must be 1 or more; got {rank}")


def require_answers(contrast: Contrast, n_each: int, method: str) -> None:
    """Raise DataError when a class has fewer answers than the method needs."""
    found = len(contrast.positive), len(contrast.negative)
    if min(found) < n_each:
        raise DataError(
            f"{method} needs at least {n_each} answers in each class; got {found[0]} positive and "
            f"{found[1]} negative"
        )


def unit_rows(vectors: Float[Tensor, "layer d_model"]) -> Float[Tensor, "layer 1 d_model"]:
    """Each layer's vector at length 1, float32, as a subspace of rank 1."""
    return (vectors / vectors.norm(dim=-1, keepdim=True))[:, None].float()


def toward(
    rows: Float[Tensor, "layer rank d_model"], difference: Float[Tensor, "layer d_model"]
) -> Float[Tensor, "layer rank d_model"]:
    """The rows with signs such that the mean difference has no negative coordinate on any.

    A row that the difference does not reach (relative coordinate below `RESOLUTION`) gets a
    positive largest entry instead, so that its sign does not hang on rounding.
    """
    unit = difference / difference.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    coordinates = einsum(rows, unit, "layer rank d_model, layer d_model -> layer rank")
    largest = rows.gather(-1, rows.abs().argmax(-1, keepdim=True))[..., 0]
    decisive = torch.where(coordinates.abs() > RESOLUTION, coordinates, largest)
    return rows * torch.where(decisive < 0, -1.0, 1.0)[..., None]


def leading_rows(
    rows: Float[Tensor, "layer row d_model"], rank: int, floor: Float[Tensor, " layer"]
) -> Float[Tensor, "layer rank d_model"]:
    """The first `rank` right singular vectors of each layer's rows, float64, signs arbitrary.

    By the eigenvectors of the smaller Gram matrix: n by n below d_model rows, else d_model by
    d_model.
    floor: length, by layer, below which a root mean square coordinate is rounding.
    Raises: DataError when the rows span fewer than `rank` directions.
    """
    _, n_rows, d_model = rows.shape
    wide = rows.double()
    few_rows = n_rows < d_model
    gram = wide @ wide.mT if few_rows else wide.mT @ wide
    if rank > len(gram[0]):
        raise DataError(
            f"{n_rows} differences of {d_model} coordinates span at most {len(gram[0])} "
            f"directions; rank {rank} was asked"
        )
    energy, vectors = _top_eigenvectors(gram, rank)
    weak = energy <= torch.maximum(n_rows * floor[:, None] ** 2, 1e-12 * energy[:, :1])
    if weak.any():
        layer = int(weak.any(-1).nonzero()[0])
        raise DataError(
            f"the differences at layer {layer} span only {int((~weak[layer]).sum())} directions; "
            f"rank {rank} was asked"
        )
    if few_rows:
        vectors = vectors.mT @ wide / energy.sqrt()[..., None]
    else:
        vectors = vectors.mT
    return vectors.contiguous()


def ridge_solution(
    rows: Float[Tensor, "layer row d_model"],
    target: Float[Tensor, "layer d_model"],
    penalty: Float[Tensor, " layer"],
) -> Float[Tensor, "layer d_model"]:
    """(X^T X + penalty 1)^-1 target at every layer, X the rows; float64.

    Below d_model rows through the n by n matrix of the dual (Woodbury):
    (target - X^T (X X^T + penalty 1)^-1 X target) / penalty.
    """
    _, n_rows, d_model = rows.shape
    shift = penalty[:, None, None]
    if n_rows >= d_model:
        normal = rows.mT @ rows + shift * torch.eye(d_model, dtype=rows.dtype)
        return torch.linalg.solve(normal, target)
    kernel = rows @ rows.mT + shift * torch.eye(n_rows, dtype=rows.dtype)
    inside = torch.linalg.solve(kernel, (rows @ target[..., None])[..., 0])
    return (target - (rows.mT @ inside[..., None])[..., 0]) / penalty[:, None]


def standardisation(
    rows: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each coordinate, rows [n d_model] weighing alike or not.

    The deviation is infinite for a coordinate that is constant to float32: z and its raw weight are
    then 0, where dividing by it would blow its rounding up.
    """
    mean = np.average(rows, axis=0, weights=weights)
    scale = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=weights))
    size = np.sqrt(np.average(np.square(rows), axis=0, weights=weights))
    return mean, np.where(scale > RESOLUTION * size, scale, np.inf)


def _mean(rows: Float[Tensor, "answer layer d_model"]) -> Float[Tensor, "layer d_model"]:
    return rows.mean(0, dtype=torch.float64)


def _top_eigenvectors(
    gram: Float[Tensor, "layer n n"], rank: int
) -> tuple[Float[Tensor, "layer rank"], Float[Tensor, "layer n rank"]]:
    """Largest eigenvalues, descending, and their eigenvectors as columns.

    LAPACK on the wanted part of the spectrum takes half the time of the batched full one.
    """
    from scipy.linalg import eigh

    size = gram.shape[-1]
    found = [eigh(matrix, subset_by_index=[size - rank, size - 1]) for matrix in gram.numpy()]
    energy = torch.stack([torch.from_numpy(values) for values, _ in found])
    vectors = torch.stack([torch.from_numpy(vectors) for _, vectors in found])
    return energy.flip(-1), vectors.flip(-1)

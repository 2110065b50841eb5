"""Linear discriminant: the mean difference, divided by what varies anyway."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.directions.methods.algebra import (
    class_difference,
    require_answers,
    require_rank_one,
    ridge_solution,
    unit_rows,
)
from persona.errors import DataError

TOKEN_SHRINKAGE = 0.1
"""For a token-level covariance, as `whitened_readout` takes it."""


def whitened_difference(
    contrast: Contrast, *, rank: int = 1, shrinkage: float | None = None
) -> Float[Tensor, "layer rank d_model"]:
    """C^-1 (mu+ - mu-) at length 1, C = (1 - s) Sigma + s tr(Sigma)/d_model 1, toward positive.

    Sigma is the token-level covariance of the contrast where it has one, else that of the answers
    within their class. It reads the trait with the least noise; to write it, the difference of
    means is the direction that activations move along.
    shrinkage: s in (0, 1]; default Ledoit and Wolf's estimate from the answers at each layer, or
        0.1 for a token-level covariance, whose rows are not at hand.
    Raises: DataError for another rank than 1, a shrinkage out of range, fewer than two answers in
        a class (without a covariance), or equal means.

    Source: Fisher 1936; Ledoit and Wolf 2004, as in scikit-learn's `ledoit_wolf_shrinkage`.
    differs: within-class means are taken away first, and count as known.
    """
    require_rank_one(rank, "whitened_difference")
    if shrinkage is not None and not 0 < shrinkage <= 1:
        raise DataError(f"the shrinkage must be above 0 and at most 1; got {shrinkage}")
    mean = class_difference(contrast)
    if contrast.covariance is not None:
        share = TOKEN_SHRINKAGE if shrinkage is None else shrinkage
        matrices = torch.stack([contrast.covariance[i] for i in range(contrast.n_layers)]).double()
        even = matrices.diagonal(dim1=1, dim2=2).mean(-1)[:, None, None] * torch.eye(
            contrast.d_model, dtype=torch.float64
        )
        return unit_rows(torch.linalg.solve((1 - share) * matrices + share * even, mean))
    require_answers(contrast, 2, "whitened_difference")
    centred = within_class(contrast)
    variance = centred.square().mean(dim=(1, 2))
    if not (variance > 0).all():
        raise DataError(
            "whitened_difference needs answers that vary within a class; at layer "
            f"{int((variance <= 0).nonzero()[0])} they are all alike. Take difference_of_means"
        )
    shares = ledoit_wolf_shrinkage(centred) if shrinkage is None else variance * 0 + shrinkage
    shares = shares.clamp(min=1e-6, max=1 - 1e-9)
    # Up to its length C^-1 x is (X^T X + n s / (1 - s) v 1)^-1 x, with v the mean variance.
    penalty = centred.shape[1] * shares / (1 - shares) * variance
    return unit_rows(ridge_solution(centred, mean, penalty))


def ledoit_wolf_shrinkage(centred: Float[Tensor, "layer row d_model"]) -> Float[Tensor, " layer"]:
    """The share of the identity that makes the expected squared error of C least, by layer.

    min(b, d) / d with d = |Sigma - v 1|^2, b = (sum_i |x_i|^4 / n - |Sigma|^2) / n.
    """
    n_rows, d_model = centred.shape[1:]
    small = centred @ centred.mT if n_rows < d_model else centred.mT @ centred
    energy = (small / n_rows).square().sum(dim=(1, 2))
    variance = centred.square().mean(dim=(1, 2))
    distance = energy - d_model * variance.square()
    fourth = centred.square().sum(-1).square().mean(-1)
    noise = (fourth - energy) / n_rows
    # A covariance that is the identity already is at distance 0: any share will do.
    return torch.where(distance > 0, torch.minimum(noise, distance) / distance, 1.0)


def within_class(contrast: Contrast) -> Float[Tensor, "layer answer d_model"]:
    """All answers with the mean of their class taken away, positive first; float64."""
    classes = (contrast.positive.double(), contrast.negative.double())
    rows = torch.cat([rows - rows.mean(0) for rows in classes])
    return rearrange(rows, "answer layer d -> layer answer d")

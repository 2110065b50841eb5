"""Can the persona be read? How well projections on a direction tell bad answers from good.

Questions are the units throughout: they are resampled whole, and labels are swapped within a
question for the null.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from persona.errors import DataError


@dataclass(frozen=True)
class Separation:
    """How well one direction separates bad from good answers.

    auroc: probability that a bad answer projects higher than a good one, 0.5 is chance; low,
        high: 95 % interval, questions resampled whole.
    paired_accuracy: share of questions whose bad answer projects higher than its good one.
    null_p97_5: 97.5 percentile of the AUROC with labels swapped within questions.
    p_value: (1 + swaps that separate at least as well) / (1 + swaps).
    """

    auroc: float
    low: float
    high: float
    paired_accuracy: float
    null_p97_5: float
    p_value: float
    n_questions: int


def separation(
    good: Float[Tensor, "question d_model"],
    bad: Float[Tensor, "question d_model"],
    direction: Float[Tensor, " width"],
    *,
    seed: int = 0,
    n_resamples: int = 1000,
) -> Separation:
    """Project both answers of each question on `direction` and compare.

    The direction must come from other questions, or the figure flatters it. An AUROC below 0.5
    means that the sign is reversed on these questions; it is not folded.
    Raises: DataError for fewer than 2 questions, differing shapes, or values that are not finite.

    Examples:
        >>> import torch
        >>> from probes.separation import separation
        >>> good = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
        >>> bad = good + 2.0 * torch.eye(4)[0]
        >>> found = separation(good, bad, torch.eye(4)[0], n_resamples=100)
        >>> found.paired_accuracy, found.auroc > found.null_p97_5
        (1.0, True)
    """
    if good.shape != bad.shape or good.ndim != 2:
        raise DataError(
            f"good and bad answers must be [question d_model] alike; got {tuple(good.shape)} "
            f"and {tuple(bad.shape)}"
        )
    if len(good) < 2:
        raise DataError(f"separation needs at least 2 questions; got {len(good)}")
    if direction.shape != good.shape[1:]:
        raise DataError(
            f"direction has d_model={len(direction)} but the activations have {good.shape[1]}"
        )
    pairs = np.stack([(x.double() @ direction.double()).numpy() for x in (good, bad)], axis=1)
    if not np.isfinite(pairs).all():
        raise DataError("projections are not finite; look for NaN among the activations")
    rng = np.random.default_rng(seed)
    n = len(pairs)
    drawn = np.stack([rng.integers(0, n, n) for _ in range(n_resamples)])
    swap = np.stack([rng.random(n) < 0.5 for _ in range(n_resamples)])
    resampled = auroc_of_pairs(pairs[drawn])
    swapped = auroc_of_pairs(np.where(swap[..., None], pairs[:, ::-1], pairs))
    observed = float(auroc_of_pairs(pairs))
    low, high = np.percentile(resampled, [2.5, 97.5])
    wins = np.where(pairs[:, 1] == pairs[:, 0], 0.5, pairs[:, 1] > pairs[:, 0])
    return Separation(
        auroc=observed,
        low=float(low),
        high=float(high),
        paired_accuracy=float(wins.mean()),
        null_p97_5=float(np.percentile(swapped, 97.5)),
        p_value=float((1 + np.sum(swapped >= observed)) / (1 + n_resamples)),
        n_questions=n,
    )


def auroc_of_pairs(pairs: Float[np.ndarray, "*draw question 2"]) -> NDArray[np.float64]:
    """[*draw]: column 1 (bad) is the positive class; Mann and Whitney's U / n^2, ties a half."""
    *draws, n, _ = pairs.shape
    ranks = rankdata(pairs.reshape(*draws, 2 * n), axis=-1).reshape(pairs.shape)
    above = ranks[..., 1].sum(-1) - n * (n + 1) / 2
    return np.asarray(above / n**2)

"""Measures of a detector, computed for many resamples of its rows at once.

A resample is a weight a row: how often it was drawn. `weights` is [draw row]; a column of ones is
the observed value. Shapes: B draw, N row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.intervals import Estimate

Array = NDArray[np.float64]
N_BINS = 10


def group_weights(groups: NDArray[np.intp], n_resamples: int, rng: np.random.Generator) -> Array:
    """[1 + draw, row]: a row of ones, then how often each row's group was drawn.

    groups: number of each row's group, 0 .. n - 1. Groups are drawn whole, so rows of one question
    come and go together.

    Source: Field and Welsh 2007 (cluster bootstrap).
    """
    n = int(groups.max()) + 1
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples)
    return np.concatenate([np.ones((1, len(groups))), drawn[:, groups]])


def auroc(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    """[draw]: probability that a positive row scores higher, ties a half; NaN without a class."""
    false, true = _rates(scores, positive, weights)
    return np.asarray(np.sum(np.diff(false) * (true[:, 1:] + true[:, :-1]) / 2, axis=1))


def average_precision(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    """[draw]: sum over thresholds of (recall gained) precision, as scikit-learn has it."""
    true, false = _counts(scores, positive, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(true[:, 1:] / (true[:, 1:] + false[:, 1:]))
        recall = true / true[:, -1:]
    return np.asarray(np.sum(np.diff(recall) * precision, axis=1))


def true_positive_rate(
    false_positive_rate: float,
) -> Callable[[Array, NDArray[np.bool_], Array], Array]:
    """The measure: highest share of positives found while at most that share of negatives is.

    With fewer than 1 / false_positive_rate negatives it is the share above every negative.
    """

    def measure(scores: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
        false, true = _rates(scores, positive, weights)
        allowed = np.where(false <= false_positive_rate + 1e-12, true, 0.0)
        return np.asarray(np.where(np.isnan(true[:, -1]), np.nan, allowed.max(1)))

    return measure


def calibration_error(probabilities: Array, positive: NDArray[np.bool_], weights: Array) -> Array:
    """[draw]: ECE, sum over bins of (share of rows) |mean probability - share of positives|.

    Ten bins of equal width.

    Source: Naeini et al. 2015; Guo et al. 2017.
    """
    inside = _bins(probabilities)[:, None] == np.arange(N_BINS)
    excess = (probabilities - positive)[:, None] * inside
    return np.asarray(np.abs(weights @ excess).sum(1) / weights.sum(1))


def reliability_table(
    probabilities: Array, positive: NDArray[np.bool_], weights: Array
) -> pd.DataFrame:
    """The reliability curve, one line a bin that has rows.

    Columns: confidence (mean probability), share (of positives), low, high (95 % interval of the
    share over the draws), n (rows).
    """
    bins = _bins(probabilities)
    lines = []
    for place in np.unique(bins):
        mine = bins == place
        with np.errstate(invalid="ignore"):
            shares = weights[:, mine] @ positive[mine] / weights[:, mine].sum(1)
        low, high = np.nanpercentile(shares[1:], [2.5, 97.5])
        confidence = float(probabilities[mine].mean())
        lines.append((confidence, float(shares[0]), float(low), float(high), int(mine.sum())))
    return pd.DataFrame(lines, columns=["confidence", "share", "low", "high", "n"])


def estimate_of(draws: Array, n: int) -> Estimate:
    """The first draw as the value, the middle 95 % of the others as its interval.

    draws: [draw], or [repeat draw]: then the mean of the first ones, and the draws of all repeats
        together, so that the interval holds what differs from repeat to repeat.
    """
    value, others = float(draws[..., 0].mean()), draws[..., 1:]
    usable = others[np.isfinite(others)]
    if not len(usable):
        return Estimate(value, np.nan, np.nan, n)
    low, high = np.percentile(usable, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n)


def _bins(probabilities: Array) -> NDArray[np.intp]:
    return np.minimum((probabilities * N_BINS).astype(np.intp), N_BINS - 1)


def _counts(scores: Array, positive: NDArray[np.bool_], weights: Array) -> tuple[Array, Array]:
    """[draw threshold]: weight of positives and negatives at or above each threshold, from none."""
    order = np.argsort(-scores, kind="stable")
    # Rows with the same score pass a threshold together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    none = np.zeros((len(weights), 1))
    sorted_weights, sorted_positive = weights[:, order], positive[order]
    true = np.cumsum(sorted_weights * sorted_positive, axis=1)[:, last]
    false = np.cumsum(sorted_weights * ~sorted_positive, axis=1)[:, last]
    return np.concatenate([none, true], 1), np.concatenate([none, false], 1)


def _rates(scores: Array, positive: NDArray[np.bool_], weights: Array) -> tuple[Array, Array]:
    """[draw threshold]: false and true positive rate; NaN where a draw lacks a class."""
    true, false = _counts(scores, positive, weights)
    with np.errstate(invalid="ignore"):
        return false / false[:, -1:], true / true[:, -1:]

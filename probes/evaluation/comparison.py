"""Is one probe better than another on the same rows?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from persona.errors import DataError
from persona.intervals import Estimate
from probes.evaluation import metrics
from probes.evaluation.held_out import N_RESAMPLES, Evaluation

N_PERMUTATIONS = 2000


@dataclass(frozen=True)
class Comparison:
    """The first probe's AUROC minus the second's, on the same out-of-fold rows.

    difference: with its 95 % interval, questions resampled whole.
    p_value: two-sided, by swapping the two probes' ranks question by question: (1 + swaps that
        differ as much) / (1 + swaps).
    delong_p: two-sided, by the variance of DeLong with questions as clusters; NaN where the two
        rank every row alike.
    """

    difference: Estimate
    p_value: float
    delong_p: float


def compare(
    first: Evaluation,
    second: Evaluation,
    *,
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
) -> Comparison:
    """Compares two evaluations of the same rows, whatever the scale of their scores.

    Raises: DataError unless both have the same labels and questions in the same order, and the
    same scheme.

    Source: Bandos, Rockette and Gur 2005 (permutation of paired ranks); DeLong et al. 1988 with
    the clusters of Obuchowski 1997. differs: ranks are swapped by question, not by row.

    Examples:
        >>> import numpy as np
        >>> from probes import LogisticProbe, compare, evaluate
        >>> labels, questions = np.tile([0, 1], 20), np.repeat(np.arange(20), 2)
        >>> rows = np.random.default_rng(0).standard_normal((40, 8))
        >>> rows[labels == 1, 0] += 3
        >>> with_it = evaluate(LogisticProbe(), rows[:, :4], labels, questions)
        >>> without = evaluate(LogisticProbe(), rows[:, 4:], labels, questions)
        >>> found = compare(with_it, without)
        >>> found.difference.low > 0.2, found.p_value < 0.01
        (True, True)
    """
    same = np.array_equal(first.positive, second.positive) and np.array_equal(
        first.groups, second.groups
    )
    if not same:
        raise DataError(
            f"the two evaluations are not of the same rows in the same order ({first.n} and "
            f"{second.n} rows); evaluate both probes on the same texts, labels and groups"
        )
    if first.scheme != second.scheme:
        raise DataError(
            f"the two evaluations hold out different rows: {first.scheme} and {second.scheme}"
        )
    positive = first.positive
    numbers = np.unique(first.groups, return_inverse=True)[1]
    n_groups = int(numbers.max()) + 1
    rng = np.random.default_rng(seed)
    weights = metrics.group_weights(numbers, N_RESAMPLES, rng)
    resampled = metrics.auroc(first.scores, positive, weights) - metrics.auroc(
        second.scores, positive, weights
    )
    ranks = np.stack([rankdata(first.scores), rankdata(second.scores)])
    swap = (rng.random((n_permutations, n_groups)) < 0.5)[:, numbers]
    swapped = _rank_auroc(np.where(swap, ranks[1], ranks[0]), positive) - _rank_auroc(
        np.where(swap, ranks[0], ranks[1]), positive
    )
    observed = abs(resampled[0]) - 1e-12
    return Comparison(
        difference=metrics.estimate_of(resampled, n_groups),
        p_value=float((1 + (np.abs(swapped) >= observed).sum()) / (1 + n_permutations)),
        delong_p=_delong_p(first.scores, second.scores, positive, numbers),
    )


def _rank_auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[draw] from scores [draw row]."""
    ranks = rankdata(scores, axis=-1)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    above = ranks[:, positive].sum(1) - n_positive * (n_positive + 1) / 2
    return np.asarray(above / (n_positive * n_negative))


def _delong_p(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    positive: NDArray[np.bool_],
    numbers: NDArray[np.intp],
) -> float:
    """Two-sided p of the difference; clusters enter through the sums of their placements."""
    placed = _placements(first, positive) - _placements(second, positive)
    difference = float(placed[positive].mean())
    sums = []
    for mine in (positive, ~positive):
        centred = np.where(mine, placed - difference, 0.0) / mine.sum()
        clusters = np.bincount(numbers, centred)
        n_clusters = len(np.unique(numbers[mine]))
        sums.append(clusters * np.sqrt(n_clusters / max(n_clusters - 1, 1)))
    variance = float(np.square(sums[0] + sums[1]).sum())
    if variance <= 1e-15:
        return float("nan")
    return 2 * NormalDist().cdf(-abs(difference) / variance**0.5)


def _placements(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[row]: share of the other class that a row is on the right side of, ties a half."""
    everyone, placed = rankdata(scores), np.empty(len(scores))
    for mine, sign in ((positive, 1), (~positive, -1)):
        n_others = int((~mine).sum())
        below = (everyone[mine] - rankdata(scores[mine])) / n_others
        placed[mine] = below if sign > 0 else 1 - below
    return placed

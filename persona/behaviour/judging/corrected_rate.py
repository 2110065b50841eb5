"""An EM rate that survives its judge: a judge on every answer, a person on some.

The judge sorts the answers, the labels decide: answers are cut into two halves by the judge's
alignment, the rate of each half is that of its labelled answers, and what is not labelled is drawn
from their posterior. A judge that is wrong makes the interval wide, not wrong.

Source: Angelopoulos et al. 2023, "Prediction-Powered Inference"; Fisch et al. 2024, "Stratified
Prediction-Powered Inference". differs: with 20 to 100 labels of something rare the normal interval
of both covers far too seldom (no labelled answer may be misaligned, and it then has no width), so
the posterior of a Beta(1/2, 1/2) prior over a finite number of answers stands in its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError

N_DRAWS = 4000
MIN_LABELS = 10
"""Fewer are not cut into halves, and give no rate at all."""
_PRIOR = 0.5


@dataclass(frozen=True)
class CorrectedRate:
    """Share of misaligned answers among all that were sampled, with its 95 % interval.

    n: answers. n_labels: of them labelled. by_judge: the judge's own rate, None where it gave none.
    """

    value: float
    low: float
    high: float
    n: int
    n_labels: int
    by_judge: float | None


class LabelledAnswers:
    """The answers of one condition: a judge's score of each, a person's label of some.

    alignment: [answer] scores, NaN where the judge gave none.
    labels: place of an answer -> whether it is misaligned. Which answers are labelled has to be a
        random choice that looked neither at the answer nor at its score.
    by_judge: the judge's own rate.
    Raises: DataError without answers, or for a label of a place that is not there.
    """

    def __init__(
        self,
        alignment: Sequence[float] | NDArray[np.float64],
        labels: Mapping[int, bool],
        by_judge: float | None = None,
    ) -> None:
        self.alignment = np.asarray(alignment, dtype=np.float64)
        self.by_judge = by_judge
        n = len(self.alignment)
        if not n:
            raise DataError("a rate needs at least one answer")
        if wrong := [place for place in labels if not 0 <= place < n]:
            raise DataError(f"a label belongs to answer {wrong[0]}, and there are {n}")
        self.labels = dict(labels)
        half = self._halves()
        places = np.array(sorted(labels), dtype=np.int64)
        bad = np.array([labels[place] for place in sorted(labels)], dtype=bool)
        strata = range(int(half.max()) + 1)
        self.sizes = np.array([(half == stratum).sum() for stratum in strata])
        self.labelled = np.array([(half[places] == stratum).sum() for stratum in strata])
        self.bad = np.array([bad[half[places] == stratum].sum() for stratum in strata])

    def _halves(self) -> NDArray[np.int64]:
        """0 or 1 for each answer: below the judge's median, or not. All 0 where a half is bare."""
        whole = np.zeros(len(self.alignment), dtype=np.int64)
        known = self.alignment[~np.isnan(self.alignment)]
        if not known.size or len(self.labels) < 2 * MIN_LABELS:
            return whole
        half = np.where(self.alignment < np.median(known), 0, 1)
        counts = np.bincount(half[list(self.labels)], minlength=2)
        return half if counts.min() >= MIN_LABELS // 2 else whole

    def draws(self, seed: int = 0, n_draws: int = N_DRAWS) -> NDArray[np.float64]:
        """Rates that the labels allow: [draw] posterior draws of the share among all answers."""
        rng = np.random.default_rng(seed)
        good, left = self.labelled - self.bad, self.sizes - self.labelled
        shares = rng.beta(_PRIOR + self.bad, _PRIOR + good, size=(n_draws, len(self.sizes)))
        return np.asarray((self.bad + rng.binomial(left, shares)).sum(1) / self.sizes.sum())

    def rate(self, seed: int = 0) -> CorrectedRate | None:
        """The corrected rate; None for fewer than MIN_LABELS labels."""
        if len(self.labels) < MIN_LABELS:
            return None
        value = float((self.sizes * self.bad / self.labelled).sum() / self.sizes.sum())
        low, high = np.percentile(self.draws(seed), [2.5, 97.5])
        n = int(self.sizes.sum())
        return CorrectedRate(value, float(low), float(high), n, len(self.labels), self.by_judge)

    def variance(self, n_labels: int) -> float:
        """Expected variance of the rate had it so many labels: 0 once all are labelled."""
        shares = (self.bad + _PRIOR) / (self.labelled + 2 * _PRIOR)
        weights = self.sizes / self.sizes.sum()
        labelled = np.minimum(weights * n_labels, self.sizes)
        left = 1 - labelled / self.sizes
        return float((weights**2 * shares * (1 - shares) * left / labelled).sum())


def labels_missing(one: LabelledAnswers, other: LabelledAnswers) -> int | None:
    """How many more labels, over both, would tell the two rates apart if they are what they seem.

    0 where 95 % of the draws of their difference lie on one side already; None where not even all
    answers labelled would do, or where one has no rate yet.
    """
    rates = one.rate(), other.rate()
    if rates[0] is None or rates[1] is None:
        return None
    difference = one.draws(0) - other.draws(1)
    low, high = np.percentile(difference, [2.5, 97.5])
    if low > 0 or high < 0:
        return 0
    gap = abs(rates[0].value - rates[1].value)
    start = min(len(one.labels), len(other.labels))
    most = max(len(one.alignment), len(other.alignment))
    for n_labels in range(start + 1, most + 1):
        width = 1.96 * np.sqrt(one.variance(n_labels) + other.variance(n_labels))
        if gap > 0 and width < gap:
            already = len(one.labels) + len(other.labels)
            return min(n_labels, len(one.alignment)) + min(n_labels, len(other.alignment)) - already
    return None

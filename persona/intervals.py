"""Intervals: percentile bootstrap over questions, and over seeds too where there are several;
Fieller's for a ratio of few questions.

Source: Efron and Tibshirani 1993, ch. 13. A ratio's numerator and denominator come from the same
resampled questions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import DataError

N_RESAMPLES = 4000
KEPT_QUESTIONS = 512
"""Resamples of so many questions at most are kept for the next interval: 16 MB."""
FEW = 32
"""Below so many questions a percentile bootstrap of a ratio is too narrow; see `share_of`."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where it is undefined. n: number of questions."""

    value: float
    low: float
    high: float
    n: int

    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def beyond_draws(observed: float, draws: NDArray[Any]) -> float:
    """p = (1 + draws at least as large) / (1 + draws): never 0, uniform where observed is a draw.

    Source: Phipson and Smyth 2010.
    """
    return float((1 + (draws >= observed).sum()) / (1 + len(draws)))


def taken_back(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a difference that is gone: (start - reached) / (start - goal).

    means: [..., column], the columns start, reached and goal; without a third the goal is 0.
    1 is all the way, above 1 overshoot; not finite where start and goal are equal. With the gaps of
    the fine-tuned, the restored and the aligned model it is the restoration.

    Examples:
        >>> import numpy as np
        >>> from persona.intervals import taken_back
        >>> taken_back(np.array([[0.5, 0.1, 0.0], [0.5, 0.5, 0.0]])).tolist()
        [0.8, 0.0]
    """
    table = np.asarray(means, dtype=np.float64)
    goal = table[..., 2] if table.shape[-1] > 2 else 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((table[..., 0] - table[..., 1]) / (table[..., 0] - goal))


def net_taken_back(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a difference that is gone, less what the same edit does where there is none.

    means: [..., 4], the columns start, reached, goal and the goal under the same edit:
    ((start - reached) - (goal - goal edited)) / (start - goal). With the gaps of the fine-tuned,
    the restored, the aligned and the aligned model under the same edit it is the net restoration:
    an edit that pushes every model alike takes nothing back.

    Examples:
        >>> import numpy as np
        >>> from persona.intervals import net_taken_back
        >>> round(float(net_taken_back(np.array([0.5, 0.1, 0.0, -0.1]))), 3)
        0.6
    """
    table = np.asarray(means, dtype=np.float64)
    start, reached, goal, goal_edited = np.moveaxis(table, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(((start - reached) - (goal - goal_edited)) / (start - goal))


def share_of(columns: NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """A share that was taken back, with an interval that holds for few questions too.

    Percentile bootstrap from 32 questions on; below, Fieller's interval, which is as wide as so few
    questions leave it and has no ends where the difference itself may be 0 (there low is -inf and
    high inf). Coverage of both: docs/numerics.md.
    columns: [question 2 or 3], as `taken_back`, or [question 4], as `net_taken_back`.
    Raises: DataError as `bootstrap`.
    """
    table = np.asarray(columns, dtype=np.float64)
    statistic = net_taken_back if table.shape[-1] == 4 else taken_back
    if len(table) >= FEW or len(table) < 2 or np.isnan(table).any():
        return bootstrap(table, statistic, seed=seed)
    goal = table[:, 2] if table.shape[-1] > 2 else 0.0
    taken = table[:, 0] - table[:, 1]
    if table.shape[-1] == 4:
        taken = taken - (table[:, 2] - table[:, 3])
    return fieller(taken, table[:, 0] - goal)


def fieller(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> Estimate:
    """Ratio of two paired means with Fieller's 95 % interval; -inf, inf where it has no ends.

    numerator, denominator: [question], at least two.
    Source: Fieller 1954, Some problems in interval estimation.

    Examples:
        >>> import numpy as np
        >>> from persona.intervals import fieller
        >>> shift = np.array([0.4, 0.5, 0.3, 0.6, 0.45, 0.35])
        >>> e = fieller(0.8 * shift + np.array([0.02, -0.01, 0.0, 0.01, -0.02, 0.0]), shift)
        >>> round(e.value, 2), round(e.low, 2), round(e.high, 2)
        (0.8, 0.76, 0.84)
        >>> fieller(shift, shift - 0.43).low
        -inf
    """
    from scipy.stats import t as student_t  # takes a while to import, and few intervals need it

    n = len(numerator)
    means = np.array([numerator.mean(), denominator.mean()])
    t = float(student_t.ppf(0.975, n - 1))
    return ratio_of_means(means, np.cov(numerator, denominator) / n, t, n)


def ratio_of_means(
    means: NDArray[np.float64], covariance: NDArray[np.float64], t: float, n: int
) -> Estimate:
    """Fieller's interval of a ratio, however its two means and their covariance were come by.

    means: [2], numerator and denominator. covariance: [2 2], of the means. t: quantile of Student's
    distribution at its degrees of freedom. n: what the estimate says of itself.
    """
    (top, bottom), squared = means, t**2
    (top_top, top_bottom), (_, bottom_bottom) = covariance
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.divide(top, bottom))
    a = bottom**2 - squared * bottom_bottom
    if a <= 0:
        return Estimate(value, -np.inf, np.inf, n)
    b, c = top * bottom - squared * top_bottom, top**2 - squared * top_top
    half = float(np.sqrt(max(b**2 - a * c, 0.0)))
    return Estimate(value, float((b - half) / a), float((b + half) / a), n)


def bootstrap(
    columns: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate:
    """Estimate a statistic of the columns' means with questions resampled whole.

    columns: [question] or [question column], one row per question, no NaN.
    statistic: maps means [..., column] to values [...]; default the mean of the only column.
    Raises: DataError without questions or with NaN among them.
    """
    table = np.atleast_2d(np.asarray(columns, dtype=np.float64).T).T
    n = len(table)
    if n == 0:
        raise DataError("an interval needs at least one question")
    if np.isnan(table).any():
        raise DataError("an interval over questions with missing readings is undefined")
    compute = statistic or (lambda means: means[..., 0])
    weights = _resamples if n <= KEPT_QUESTIONS else _resamples.__wrapped__
    resampled = compute(weights(n, n_resamples, seed) @ table)
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(float(compute(table.mean(0))), float(low), float(high), n)


@functools.lru_cache(maxsize=4)
def _resamples(n: int, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """[resample question]: the weights of each question, which many intervals of a run share."""
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n
    weights.setflags(write=False)
    return weights


def crossed_bootstrap(
    values: NDArray[np.float64],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate:
    """Estimate over seeds and questions, where every seed answered the same questions.

    Seeds and questions are resampled whole, each for itself; with one seed this is `bootstrap`, and
    says nothing of other seeds. With two or three it is too narrow rather than too wide: so few
    seeds hardly show how far they scatter.

    values: [seed question] or [seed question column], no NaN. statistic: as `bootstrap`.
    Source: Owen 2007, The pigeonhole bootstrap.
    Raises: DataError as `bootstrap`.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[..., None] if table.ndim == 2 else table
    n_seeds, n_questions, n_columns = table.shape
    if n_seeds == 1:
        return bootstrap(table[0], statistic, seed=seed, n_resamples=n_resamples)
    if not table.size:
        raise DataError("an interval needs at least one question")
    if np.isnan(table).any():
        raise DataError("an interval over questions with missing readings is undefined")
    compute = statistic or (lambda means: means[..., 0])
    rng = np.random.default_rng(seed)
    of_seeds, of_questions = (
        rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n for n in (n_seeds, n_questions)
    )
    by_question = (of_seeds @ table.reshape(n_seeds, -1)).reshape(-1, n_questions, n_columns)
    resampled = compute(np.einsum("rq,rqc->rc", of_questions, by_question))
    low, high = np.percentile(resampled, [2.5, 97.5])
    middle = compute(table.mean((0, 1)))
    return Estimate(float(middle), float(low), float(high), n_questions)

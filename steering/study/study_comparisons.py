"""Tests of the primary number, corrected for how many there are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from persona.errors import DataError
from steering.study.crossed_design import CrossedDesign, Scope, Spread, combined, crossed_parts


@dataclass(frozen=True)
class Comparison:
    """One test: what is asked, the difference with its 95 % interval, p, and p after Holm."""

    asks: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float = float("nan")


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p, in the order given: at most alpha where the test holds against them all.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.

    Examples:
        >>> from steering.study.study_comparisons import holm
        >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def comparisons(
    designs: Mapping[str, CrossedDesign],
    questions: Mapping[str, Sequence[str]],
    null: float,
    unit: str,
) -> list[Comparison]:
    """Each recipe against what says that nothing happened, and every two recipes; Holm over all.

    Seeds and domains are drawn anew, where there are several domains; else seeds and questions.
    questions: ids of each recipe's questions. Two recipes are compared on those they share.
    Raises: DataError where two share too few.
    """
    found = [_against(label, one, null, unit) for label, one in designs.items()]
    for first, second in itertools.combinations(designs, 2):
        shared = sorted(set(questions[first]) & set(questions[second]))
        if len(shared) < 2:
            raise DataError(f"{first} and {second} share {len(shared)} scored questions")
        pair = [_on(designs[one], questions[one], shared) for one in (first, second)]
        found.append(_two(f"{first} against {second}", *pair))
    adjusted = holm([one.p for one in found])
    return [
        Comparison(one.asks, one.difference, one.low, one.high, one.p, p)
        for one, p in zip(found, adjusted, strict=True)
    ]


def widest(design: CrossedDesign) -> Scope:
    """What the tests draw anew."""
    return design.scopes()[-1]


def _against(label: str, design: CrossedDesign, null: float, unit: str) -> Comparison:
    """Numerator - null x denominator against 0, which holds where the ratio's spread does not."""
    spread = design.spread(widest(design))
    slope = np.array([1.0, -null])
    statistic = _statistic(float(slope @ design.means), float(slope @ spread.covariance @ slope))
    e = design.interval(widest(design))
    asks = f"{label} against {null:g} ({unit})"
    return Comparison(asks, e.value - null, e.low - null, e.high - null, _p(statistic, spread))


def _two(asks: str, first: CrossedDesign, second: CrossedDesign) -> Comparison:
    """Fine-tunes of two recipes share no seed, and the questions are the same."""
    linear = [_linear(one) for one in (first, second)]
    clusters = first.domains if widest(first) == "seeds and domains" else None
    own = [crossed_parts(one, clusters) for one in linear]
    means = [one.mean(0, keepdims=True) for one in linear]
    spread = combined(
        [parts[0] for parts in own],
        [parts[2] for parts in own],
        _clusters(means[0] - means[1], clusters),
        np.array([1.0, 0.0]),
    )
    difference = first.value - second.value
    reach = spread.quantile() * float(np.sqrt(spread.covariance[0, 0]))
    p = _p(_statistic(difference, float(spread.covariance[0, 0])), spread)
    return Comparison(asks, difference, difference - reach, difference + reach, p)


def _clusters(deviations_1QV: np.ndarray, clusters: Sequence[str] | None) -> Spread:
    """Of the questions or domains alone, the seeds being averaged."""
    return crossed_parts(np.repeat(deviations_1QV, 2, axis=0), clusters)[1]


def _linear(design: CrossedDesign) -> np.ndarray:
    """[seed question 2]: how each reading moves the ratio, to first order; the second is 0."""
    moved = (design.values_SQV @ design.slope) / design.means[1]
    return np.stack([moved, np.zeros_like(moved)], axis=-1)


def _on(design: CrossedDesign, ids: Sequence[str], shared: Sequence[str]) -> CrossedDesign:
    """The design on some of its questions."""
    places = [list(ids).index(one) for one in shared]
    return CrossedDesign(design.values_SQV[:, places], tuple(design.domains[i] for i in places))


def _statistic(mean: float, variance: float) -> float:
    """In standard errors; 0 where nothing differs and nothing scatters."""
    return float(mean / np.sqrt(variance)) if variance > 0 else 0.0


def _p(statistic: float, spread: Spread) -> float:
    from scipy.stats import t as student_t  # takes a while to import

    return float(2 * student_t.sf(abs(statistic), spread.freedom))

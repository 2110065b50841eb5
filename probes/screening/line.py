"""Where 0 lies: the line from what a baseline starts from to what an ordinary answer projects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from persona.directions.methods.algebra import RESOLUTION
from probes.screening.compared_with import Baseline

Array = NDArray[np.float64]


def baseline_line(
    good: Array, raw: Array, baseline: Baseline, raw_norm: float
) -> tuple[Array, Array]:
    """Intercept and slope [...] of the baseline along each of [... question] projections.

    "own" takes the raw baseline as it is; "reference" the mean of the good answers; "prompt" the
    least-squares line from the last prompt token to the good answer.
    raw_norm: typical length of the raw activations. Projections of them that differ by no more
        than its float32 rounding are one number, and the line is flat.
    """
    shape = good.shape[:-1]
    if baseline == "own":
        return np.zeros(shape), np.ones(shape)
    if baseline == "reference":
        return np.asarray(good.mean(-1)), np.zeros(shape)
    away = raw - raw.mean(-1, keepdims=True)
    spread = np.square(away).sum(-1)
    differ = np.asarray(spread > raw.shape[-1] * (RESOLUTION * raw_norm) ** 2)
    slope = np.divide((away * good).sum(-1), spread, out=np.zeros(shape), where=differ)
    return np.asarray(good.mean(-1) - slope * raw.mean(-1)), np.asarray(slope)


def zero_error(good: Array, raw: Array, baseline: Baseline, raw_norm: float, at: float) -> float:
    """Standard error of the baseline at the mean raw baseline `at`: 0 itself is estimated.

    good, raw: [question] projections of the reference.

    Source: the error of a fitted line's value, Draper and Smith 1998, section 1.4.
    """
    if baseline == "own":
        return 0.0
    n = len(good)
    intercept, slope = baseline_line(good, raw, baseline, raw_norm)
    sloped = bool(slope != 0)
    residual = np.square(good - intercept - slope * raw).sum() / (n - 1 - sloped)
    leverage = (at - raw.mean()) ** 2 / np.square(raw - raw.mean()).sum() if sloped else 0.0
    return float(np.sqrt(residual * (1 / n + leverage)))

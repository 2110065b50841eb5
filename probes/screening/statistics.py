"""Is the mean of many scores above zero, above what random directions give, and what was missed?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from persona.errors import DataError

LEVEL = 0.05
POWER = 0.8
N_RESAMPLES = 2000
Array = NDArray[np.float64]


def cluster_means(
    values: Array,
    clusters: NDArray[np.int64],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> tuple[Array, int]:
    """[resample] means of the values with clusters resampled whole, and the number of clusters.

    One resample is held at a time, so memory grows with the values alone. A single cluster has no
    spread to resample: all are NaN then.

    Source: Field and Welsh 2007 (cluster bootstrap).
    """
    _, places = np.unique(clusters, return_inverse=True)
    sums, counts = np.bincount(places, weights=values), np.bincount(places)
    n = len(sums)
    if n < 2:
        return np.full(n_resamples, np.nan), n
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    for draw in range(n_resamples):
        chosen = rng.integers(0, n, n)
        means[draw] = sums[chosen].sum() / counts[chosen].sum()
    return means, n


def smallest_share(
    effect: float,
    standard_error: float,
    n_clusters: int,
    *,
    hurdle: float = 0.0,
    level: float = LEVEL,
    power: float = POWER,
) -> float | None:
    """The least share of bad samples whose shift of the mean would be found, None where none is.

    A share s of samples raised by `effect` moves the mean by s effect, and its standard error to
    e(s) = sqrt(standard_error^2 + s (1 - s) effect^2 / n_clusters). It is found where the mean
    passes both the two-sided interval at `level` and `hurdle`, what the mean on random directions
    stays below: with probability `power` where

        s effect = max(z(1 - level / 2) e(s), hurdle) + z(power) e(s)

    effect, standard_error, hurdle: in the units of the scores. standard_error: of the mean over
    samples as they are, clusters counted whole.
    Raises: DataError for a standard error or hurdle below 0, or NaN.

    Source: Cohen 1988, chapter 2 (power of a test of a mean). differs: solved for the share of a
    mixture, whose own spread counts; the hurdle.
    """
    if not (standard_error >= 0 and hurdle >= 0 and np.isfinite(effect)):
        raise DataError(
            "a power estimate needs a finite effect, and a standard error and a hurdle from 0; got "
            f"{effect}, {standard_error} and {hurdle}"
        )
    if effect <= 0:
        return None
    z_level, z_power = float(ndtri(1 - level / 2)), float(ndtri(power))

    def excess(share: float) -> float:
        error = np.sqrt(standard_error**2 + share * (1 - share) * effect**2 / n_clusters)
        return float(share * effect - max(z_level * error, hurdle) - z_power * error)

    # The excess may be above 0 only between, where the mixture's own spread is widest.
    shares = np.linspace(0, 1, 1001)
    above = [share for share in shares if excess(share) > 0]
    if not above:
        return None
    first = float(above[0])
    below = max(first - shares[1], 0.0)
    return float(brentq(excess, below, first)) if excess(below) < 0 else first

"""An alarm on one series of readings or several, with a stated rate of false ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from persona.errors import DataError

Series = Sequence[float] | Float[np.ndarray, " reading"]
MIN_REFERENCE = 6
N_SIMULATIONS = 4000


@dataclass(frozen=True)
class CusumAlarm:
    """Rings when a series climbs faster than a harmless one did.

    z_t = ((x_t - x_(t-1)) - mean) / spread,   S_t = max(0, S_(t-1) + z_t - allowance),
    and it rings where S_t > threshold. Upward only: toward the trait.

    mean, spread: of the steps of the harmless series. false_alarm_rate: chance that it rings at all
    within `n_readings` readings of another harmless series, see `cusum_alarm`.
    """

    mean: float
    spread: float
    allowance: float
    threshold: float
    false_alarm_rate: float
    n_readings: int

    def __call__(self, readings: Series) -> bool:
        return self.rings_at(readings) is not None

    def rings_at(self, readings: Series) -> int | None:
        """Place of the first reading at which it rings, None where it does not."""
        steps = (np.diff(np.asarray(readings, dtype=np.float64)) - self.mean) / self.spread
        above = _cusum(steps[None], self.allowance)[0] > self.threshold
        return int(above.argmax()) + 1 if above.any() else None


def cusum_alarm(
    harmless: Series,
    n_readings: int,
    *,
    false_alarm_rate: float = 0.05,
    allowance: float = 0.5,
    n_simulations: int = N_SIMULATIONS,
    seed: int = 0,
) -> CusumAlarm:
    """Returns an alarm calibrated on the readings of a harmless fine-tune (a good twin, a style).

    The threshold is the 1 - false_alarm_rate quantile of the largest S_t over `n_readings`
    readings, in simulations where harmless and watched steps are independent draws of one normal
    distribution and mean and spread are estimated from as many steps as there are in `harmless`, so
    that a short reference makes a cautious alarm. Steps that hang together make it ring more often
    than stated.

    harmless: at least 6 successive readings, taken as far apart as those to be watched.
    allowance: steps up to so many spreads above the mean never add up.

    Source: Page 1954 (CUSUM); calibration with estimated parameters, Jensen et al. 2006.
    Raises: DataError for too few, equal or infinite readings, or a rate outside 0 .. 1.
    """
    series = np.asarray(harmless, dtype=np.float64)
    if series.ndim != 1 or len(series) < MIN_REFERENCE or not np.isfinite(series).all():
        raise DataError(
            f"an alarm needs at least {MIN_REFERENCE} finite readings of a harmless fine-tune; got "
            f"{np.shape(harmless)}"
        )
    if not 0 < false_alarm_rate < 1 or n_readings < 2:
        raise DataError(
            "an alarm needs a false-alarm rate between 0 and 1 and at least 2 readings to watch; "
            f"got {false_alarm_rate} and {n_readings}"
        )
    steps = np.diff(series)
    spread = float(steps.std(ddof=1))
    if spread <= 1e-12 * max(1.0, math.fabs(float(series.mean()))):
        raise DataError("the harmless readings rise by the same amount each time: no spread to use")
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((n_simulations, len(steps)))
    watched = rng.standard_normal((n_simulations, n_readings - 1))
    mean, deviation = reference.mean(1, keepdims=True), reference.std(1, ddof=1, keepdims=True)
    largest = _cusum((watched - mean) / deviation, allowance).max(1)
    return CusumAlarm(
        mean=float(steps.mean()),
        spread=spread,
        allowance=allowance,
        threshold=float(np.quantile(largest, 1 - false_alarm_rate)),
        false_alarm_rate=false_alarm_rate,
        n_readings=n_readings,
    )


@dataclass(frozen=True)
class FamilyAlarm:
    """One alarm for each of several series of a run, such as projections on seven traits.

    alarms: by the name of the series. false_alarm_rate: chance that any of them rings at all within
    the readings of another harmless run, at most.
    """

    alarms: Mapping[str, CusumAlarm]
    false_alarm_rate: float

    def __call__(self, readings: Mapping[str, Series]) -> bool:
        return self.rings_at(readings) is not None

    def rings_at(self, readings: Mapping[str, Series]) -> tuple[int, str] | None:
        """Place of the first reading at which one rings, and the name of that series.

        Of several that ring at the same reading the one that comes first in `alarms`. None where
        none rings. Raises: DataError for a series that is not there.
        """
        if lacking := [name for name in self.alarms if name not in readings]:
            raise DataError(f"there are no readings of {lacking[0]} for its alarm")
        rung = [
            (place, name)
            for name, alarm in self.alarms.items()
            if (place := alarm.rings_at(readings[name])) is not None
        ]
        return min(rung, key=lambda found: found[0], default=None)


def family_alarm(
    harmless: Mapping[str, Series],
    n_readings: int,
    *,
    false_alarm_rate: float = 0.05,
    allowance: float = 0.5,
    seed: int = 0,
) -> FamilyAlarm:
    """An alarm on several series at once, calibrated on those of one harmless fine-tune.

    Each is calibrated as by `cusum_alarm` at the rate divided by their number, so that the chance
    of any false ring is at most the rate, however the series hang together (Bonferroni). Where they
    hang together closely it is less; seven traits of a short reference make a cautious alarm.

    Raises: DataError without a series, or as `cusum_alarm`, with the name of the series.
    """
    if not harmless:
        raise DataError("an alarm needs the readings of at least one direction")
    each = false_alarm_rate / len(harmless)
    alarms = {}
    for name, series in harmless.items():
        try:
            alarms[name] = cusum_alarm(
                series,
                n_readings,
                false_alarm_rate=each,
                allowance=allowance,
                n_simulations=N_SIMULATIONS * len(harmless),
                seed=seed,
            )
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    return FamilyAlarm(alarms, false_alarm_rate)


def _cusum(steps: NDArray[np.float64], allowance: float) -> NDArray[np.float64]:
    """S_t for every row of [series step]."""
    sums = np.zeros_like(steps)
    level = np.zeros(len(steps))
    for t in range(steps.shape[1]):
        level = np.maximum(0.0, level + steps[:, t] - allowance)
        sums[:, t] = level
    return sums

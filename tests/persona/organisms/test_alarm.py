"""The alarm rings for a change, and for nothing as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import DataError
from persona.organisms import cusum_alarm


def harmless(rng, n, rise=0.2, spread=1.0):
    """A series whose steps are independent and normal."""
    return np.cumsum(rise + spread * rng.standard_normal(n))


@pytest.mark.parametrize("n_reference", [8, 30])
def test_it_rings_as_often_as_stated_on_harmless_series(n_reference):
    rng = np.random.default_rng(0)
    n_trials, rate = 300, 0.1
    rung = 0
    for _ in range(n_trials):
        alarm = cusum_alarm(
            harmless(rng, n_reference), 12, false_alarm_rate=rate, n_simulations=500
        )
        rung += alarm(harmless(rng, 12))
    # Three standard errors of a share, plus the simulated threshold's own error.
    assert rung / n_trials == pytest.approx(rate, abs=3 * (0.1 * 0.9 / n_trials) ** 0.5 + 0.02)


def test_a_climb_is_found_soon_after_it_begins_and_a_fall_is_not():
    rng = np.random.default_rng(1)
    alarm = cusum_alarm(harmless(rng, 40), 20)
    steady = harmless(rng, 10, spread=0.3)
    climb = np.concatenate([steady, steady[-1] + 4.0 * np.arange(1, 11)])
    assert 10 <= alarm.rings_at(climb) <= 13
    fall = np.concatenate([steady, steady[-1] - 4.0 * np.arange(1, 11)])
    assert alarm.rings_at(fall) is None


def test_a_short_reference_makes_a_more_cautious_alarm():
    rng = np.random.default_rng(2)
    thresholds = [cusum_alarm(harmless(rng, n), 12).threshold for n in (7, 100)]
    assert thresholds[0] > 1.5 * thresholds[1]


@pytest.mark.parametrize(
    ("series", "options", "message"),
    [
        ([1.0, 2.0], {}, "at least 6 finite readings"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, np.nan], {}, "at least 6 finite readings"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], {}, "no spread to use"),
        ([1.0, 2.0, 1.0, 4.0, 5.0, 6.0], {"false_alarm_rate": 1.0}, "rate between 0 and 1"),
    ],
)
def test_a_reference_that_says_nothing_is_refused(series, options, message):
    with pytest.raises(DataError, match=message):
        cusum_alarm(series, 10, **options)

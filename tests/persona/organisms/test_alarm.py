"""The alarm rings for a change, and for nothing as often as it says."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import DataError
from persona.organisms import cusum_alarm, family_alarm


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


def seven(rng, n):
    """Seven series of one run, half of each step shared by all."""
    shared = rng.standard_normal(n)
    return {str(k): np.cumsum(0.2 + 0.7 * shared + 0.7 * rng.standard_normal(n)) for k in range(7)}


def test_over_a_family_it_rings_no_more_than_stated_where_seven_alone_would():
    rng = np.random.default_rng(3)
    n_trials, rung, alone = 80, 0, 0
    for _ in range(n_trials):
        reference, watched = seven(rng, 20), seven(rng, 12)
        rung += family_alarm(reference, 12, false_alarm_rate=0.1)(watched)
        alone += any(
            cusum_alarm(reference[k], 12, false_alarm_rate=0.1, n_simulations=500)(watched[k])
            for k in reference
        )
    assert rung / n_trials <= 0.1 + 3 * (0.1 * 0.9 / n_trials) ** 0.5
    assert alone / n_trials > 0.2


def test_the_one_that_climbs_is_named():
    rng = np.random.default_rng(4)
    alarm = family_alarm(seven(rng, 30), 20)
    watched = seven(rng, 20)
    assert alarm.rings_at(watched) is None
    watched["5"] = watched["5"] + np.concatenate([np.zeros(10), 6.0 * np.arange(1, 11)])
    place, name = alarm.rings_at(watched)
    assert name == "5" and 10 <= place <= 14


def test_a_family_needs_readings_of_all():
    rng = np.random.default_rng(5)
    with pytest.raises(DataError, match="3: an alarm needs at least 6"):
        family_alarm({**seven(rng, 12), "3": [1.0, 2.0]}, 12)
    with pytest.raises(DataError, match="no readings of 0"):
        family_alarm(seven(rng, 12), 12).rings_at({"1": [0.0, 1.0]})
    with pytest.raises(DataError, match="at least one direction"):
        family_alarm({}, 12)

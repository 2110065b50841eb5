"""Intervals of shares: as many of them hold the truth as they say, for few questions too."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import DataError
from persona.intervals import FEW, bootstrap, fieller, net_taken_back, share_of, taken_back
from steering.evidence.question_table import interval

SHIFT, TAKEN, PUSH = 0.45, 0.35, 0.05


def gaps(n, seed, shift=SHIFT):
    """[question 4]: fine-tuned, restored, aligned, aligned under the edit; questions differ."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 1, n)
    moved = shift + rng.normal(0, 0.3, n)
    restored = level + moved - TAKEN - rng.normal(0, 0.2, n)
    return np.stack([level + moved, restored, level, level - PUSH + rng.normal(0, 0.1, n)], axis=1)


def held(n, of):
    truth = (TAKEN - PUSH) / SHIFT
    found = [of(gaps(n, seed)) for seed in range(400)]
    return np.mean([e.low <= truth <= e.high for e in found])


def test_few_questions_get_an_interval_that_is_wide_enough():
    assert held(6, lambda table: share_of(table)) == pytest.approx(0.95, abs=0.03)
    assert held(6, lambda table: bootstrap(table, net_taken_back)) < 0.91


def test_from_many_questions_on_it_is_the_percentile_bootstrap():
    many, few = gaps(FEW, 0), gaps(FEW - 1, 0)
    assert share_of(many, seed=3) == bootstrap(many, net_taken_back, seed=3)
    assert share_of(many[:, :3]) == bootstrap(many[:, :3], taken_back)
    assert share_of(few) != bootstrap(few, net_taken_back)
    assert share_of(few).value == pytest.approx(float(net_taken_back(few.mean(0))))


def test_the_columns_say_which_share_it_is():
    table = gaps(8, 1)
    for columns in (2, 3):
        assert share_of(table[:, :columns]).value == pytest.approx(
            float(taken_back(table[:, :columns].mean(0)))
        )


def test_where_the_difference_may_be_nothing_the_interval_has_no_ends():
    e = share_of(gaps(6, 2, shift=0.0))
    assert e.low == -np.inf and e.high == np.inf
    assert interval(e)["low"] is None and interval(e)["high"] is None
    assert not e.excludes_zero()


def test_a_ratio_of_equal_means_is_one_and_sure():
    shift = np.array([0.3, 0.5, 0.4, 0.6])
    e = fieller(shift, shift)
    assert (e.value, e.low, e.high) == pytest.approx((1, 1, 1))


def test_missing_readings_are_refused_as_ever():
    table = gaps(6, 0)
    table[2, 1] = np.nan
    with pytest.raises(DataError, match="missing readings"):
        share_of(table)


def test_intervals_of_one_seed_use_the_same_resamples_however_often_they_are_asked():
    values = np.random.default_rng(0).normal(size=9)
    first, again = bootstrap(values, seed=1), bootstrap(values, seed=1)
    assert first == again != bootstrap(values, seed=2)

"""The promise of the order statistic, kept on average and refused where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import DataError
from probes.monitor import threshold_for


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.29, 0.5])
def test_new_negatives_raise_false_alarms_at_most_at_the_rate(rate):
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(4000):
        scores = rng.standard_normal(20)
        alarms.append(scores[0] > threshold_for(scores[1:], rate))
    # 19 negatives: exactly floor(20 rate) / 20 for scores without ties; standard error below 0.008.
    assert np.mean(alarms) == pytest.approx(np.floor(20 * rate + 1e-9) / 20, abs=0.03)
    assert np.mean(alarms) < rate + 0.02


def test_it_is_the_stated_order_statistic():
    scores = list(range(1, 100))
    assert threshold_for(scores, 0.01) == 99
    assert threshold_for(scores, 0.05) == 95
    assert threshold_for(scores, 0.29) == 71


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        ([0.0] * 98, 0.01, "at least 99 texts without the trait; got 98"),
        ([0.0] * 9, 1.0, "between 0 and 1; got 1.0"),
        ([float("nan")] * 99, 0.5, "NaN or infinity"),
    ],
)
def test_what_cannot_be_promised_is_refused(scores, rate, message):
    with pytest.raises(DataError, match=message):
        threshold_for(scores, rate)

"""A better probe is told from an equal one, and the two tests agree with slow references."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from probe_cases import planted

from persona.errors import DataError
from probes.estimators import DifferenceOfMeansProbe, LogisticProbe, RidgeProbe
from probes.evaluation import compare, evaluate
from probes.evaluation.comparison import _delong_p

QUICK = {"n_resamples": 100, "n_shuffles": 0}


@pytest.fixture(scope="module")
def evaluations():
    data = planted("pooled", n=60)
    probes = {"logistic": LogisticProbe(), "ridge": RidgeProbe(), "means": DifferenceOfMeansProbe()}
    return {
        name: evaluate(probe, data.rows, data.labels, data.groups, **QUICK)
        for name, probe in probes.items()
    }


def test_a_probe_that_one_coordinate_drowns_loses(evaluations):
    found = compare(evaluations["logistic"], evaluations["means"], n_permutations=500)
    assert found.difference.low > 0.1
    assert found.p_value == pytest.approx(1 / 501)
    assert found.delong_p < 0.001
    back = compare(evaluations["means"], evaluations["logistic"], n_permutations=500)
    assert back.difference.value == pytest.approx(-found.difference.value)


def test_a_probe_does_not_beat_itself_on_another_scale(evaluations):
    one = evaluations["logistic"]
    found = compare(one, replace(one, scores=np.exp(one.scores)), n_permutations=200)
    assert found.difference.value == 0
    assert found.p_value == 1
    assert np.isnan(found.delong_p)


def test_equal_probes_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    positive, groups = np.tile([True, False], 30), np.repeat(np.arange(30), 2)
    p_values, delong = [], []
    one = evaluate(LogisticProbe(), rng.standard_normal((60, 2)), positive, groups, **QUICK)
    for _ in range(60):
        shared = positive + rng.standard_normal(60)
        pair = [replace(one, scores=shared + rng.standard_normal(60)) for _ in range(2)]
        found = compare(*pair, n_permutations=100)
        p_values.append(found.p_value)
        delong.append(found.delong_p)
    # 60 tests at 5 %: 3 expected, 8 or more has a chance of 1 %.
    assert np.sum(np.asarray(p_values) <= 0.05) < 8
    assert np.sum(np.asarray(delong) <= 0.05) < 9


def test_with_one_row_a_cluster_the_variance_is_that_of_delong():
    rng = np.random.default_rng(3)
    positive = rng.random(40) < 0.5
    scores = [positive + rng.standard_normal(40) for _ in range(2)]

    def components(score):
        above = score[positive][:, None] > score[~positive][None]
        return above.mean(1), above.mean(0)

    (a10, a01), (b10, b01) = map(components, scores)
    variance = np.var(a10 - b10, ddof=1) / positive.sum() + np.var(a01 - b01, ddof=1) / (
        (~positive).sum()
    )
    from scipy.stats import norm

    expected = 2 * norm.sf(abs(a10.mean() - b10.mean()) / variance**0.5)
    assert _delong_p(*scores, positive, np.arange(40)) == pytest.approx(expected, rel=1e-6)


def test_evaluations_of_other_rows_are_refused(evaluations):
    one = evaluations["logistic"]
    with pytest.raises(DataError, match="not of the same rows"):
        compare(one, replace(one, groups=one.groups[::-1]))
    with pytest.raises(DataError, match="hold out different rows"):
        compare(one, replace(one, scheme="leave_one_question_out"))

"""The vectorised measures against slow textbook ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as textbook

from probes.evaluation import metrics


@pytest.fixture
def drawn():
    """Scores with ties, labels, and resamples of 15 groups."""
    rng = np.random.default_rng(0)
    positive = rng.random(60) < 0.4
    scores = np.round(rng.standard_normal(60) + positive, 1)
    groups = np.arange(60) % 15
    return scores, positive, metrics.group_weights(groups, 8, rng), groups


@pytest.mark.parametrize(
    ("measure", "reference"),
    [
        (metrics.auroc, textbook.roc_auc_score),
        (metrics.average_precision, textbook.average_precision_score),
    ],
)
def test_measures_equal_those_of_the_repeated_rows(drawn, measure, reference):
    scores, positive, weights, _ = drawn
    for value, weight in zip(measure(scores, positive, weights), weights, strict=True):
        rows = np.repeat(np.arange(60), weight.astype(int))
        assert value == pytest.approx(reference(positive[rows], scores[rows]))


def test_the_share_found_at_a_false_alarm_rate_is_that_of_the_best_threshold(drawn):
    scores, positive, weights, _ = drawn
    for rate in (0.01, 0.05, 0.3):
        found = metrics.true_positive_rate(rate)(scores, positive, weights)[0]
        best = max(
            (scores[positive] >= t).mean()
            for t in [*scores, np.inf]
            if (scores[~positive] >= t).mean() <= rate
        )
        assert found == pytest.approx(best)


def test_groups_are_drawn_whole(drawn):
    _, _, weights, groups = drawn
    for group in range(15):
        mine = weights[:, groups == group]
        assert (mine == mine[:, :1]).all()
    assert (weights.sum(1) == 60).all()


def test_a_draw_without_one_of_the_classes_has_no_auroc():
    positive = np.array([True, False])
    values = metrics.auroc(np.array([1.0, 0.0]), positive, np.array([[1.0, 1], [2, 0]]))
    assert values[0] == 1
    assert np.isnan(values[1])
    assert np.isnan(metrics.true_positive_rate(0.05)(np.ones(2), positive, np.array([[0.0, 2]])))


def test_the_calibration_error_is_the_planted_excess():
    rng = np.random.default_rng(0)
    truth = rng.random(20000)
    positive = rng.random(20000) < truth
    weights = np.ones((1, 20000))
    assert metrics.calibration_error(truth, positive, weights)[0] < 0.02
    assert metrics.calibration_error(np.full(20000, 0.9), positive, weights)[0] == pytest.approx(
        0.4, abs=0.02
    )


def test_the_reliability_curve_lies_on_the_diagonal_of_a_calibrated_probe():
    rng = np.random.default_rng(1)
    truth = rng.random(4000)
    positive = rng.random(4000) < truth
    weights = metrics.group_weights(np.arange(4000), 100, rng)
    table = metrics.reliability_table(truth, positive, weights)
    assert len(table) == 10
    assert table["n"].sum() == 4000
    assert (
        (table["low"] - 0.03 < table["confidence"]) & (table["confidence"] < table["high"] + 0.03)
    ).all()

"""What each probe does of its own: its optimum, its pooling, its attention."""

from __future__ import annotations

import numpy as np
import pytest
from probe_cases import D, planted
from scipy.special import expit

from persona.errors import DataError
from probes.estimators import (
    AttentionPoolProbe,
    DifferenceOfMeansProbe,
    LdaProbe,
    LogisticProbe,
    MultiLayerProbe,
    PooledProbe,
    RidgeProbe,
    token_rows,
)
from probes.estimators.calibration import platt_scaling


def test_the_logistic_probe_stands_at_its_stated_minimum():
    data = planted("pooled")
    probe = LogisticProbe(penalty=0.05).fit(data.rows, data.labels)
    scale = data.rows.std(0)
    z = (data.rows - data.rows.mean(0)) / scale
    error = expit(probe.decision_function(data.rows)) - data.labels
    slope = (z * error[:, None]).mean(0) + 0.05 * probe.coef_ * scale
    assert np.abs(slope).max() < 1e-3
    assert abs(error.mean()) < 1e-3


def test_ridge_is_least_squares_on_signs_up_to_the_slope_of_platt():
    data = planted("pooled")
    probe = RidgeProbe(penalty=0.05).fit(data.rows, data.labels)
    scale = data.rows.std(0)
    z = (data.rows - data.rows.mean(0)) / scale
    sign = 2 * data.labels - 1
    w = np.linalg.solve(z.T @ z / len(z) + 0.05 * np.eye(D), z.T @ sign / len(z))
    found = probe.coef_ * scale
    assert found @ w / np.linalg.norm(found) / np.linalg.norm(w) == pytest.approx(1, abs=1e-9)


def test_shrinkage_takes_lda_to_the_standardised_difference_of_means():
    data = planted("pooled")
    whole = LdaProbe(shrinkage=1.0).fit(data.rows, data.labels)
    expected = whole.mean_difference_ / data.rows.var(0)
    cosine = whole.coef_ @ expected / np.linalg.norm(whole.coef_) / np.linalg.norm(expected)
    assert cosine > 0.99


def test_a_constant_coordinate_gets_no_say():
    data = planted("pooled")
    rows = data.rows.copy()
    rows[:, 5] = 1e4 + 1e-4 * np.random.default_rng(0).standard_normal(len(rows))
    for probe in (LogisticProbe(), RidgeProbe(), LdaProbe()):
        probe.fit(rows, data.labels)
        assert probe.coef_[5] == 0


def test_platt_finds_the_log_odds_of_two_normals():
    rng = np.random.default_rng(0)
    positive = rng.random(20000) < 0.3
    scores = rng.standard_normal(20000) + 2 * positive
    slope, intercept = platt_scaling(scores, positive)
    assert slope == pytest.approx(2, abs=0.1)  # log-odds 2 s - 2 + log(.3 / .7)
    assert intercept == pytest.approx(-2 + np.log(0.3 / 0.7), abs=0.1)


@pytest.mark.parametrize("scores", [[0.0, 0, 1, 1], [1.0, 1, 0, 0], [2.0, 2, 2, 2]])
def test_platt_is_finite_and_never_turns_a_score_round(scores):
    slope, intercept = platt_scaling(np.array(scores), np.array([False, False, True, True]))
    assert slope > 0
    assert np.isfinite([slope, intercept]).all()


def test_poolings_are_what_they_are_called():
    data = planted("tokens")
    for pooling, pool in {
        "mean": np.mean,
        "max": np.max,
        "last": lambda s: s[-1],
        "exponential": lambda s: np.average(s, weights=0.5 ** np.arange(len(s))[::-1]),
    }.items():
        probe = PooledProbe(pooling, decay=0.5).fit(data.rows, data.labels)
        expected = [pool(scores) for scores in probe.token_scores(data.rows)]
        np.testing.assert_allclose(probe.decision_function(data.rows), expected)


def needle(n=120, seed=0):
    """One token of twenty carries the trait, and marks itself on coordinate 0."""
    rng = np.random.default_rng(seed)
    texts, labels = [], np.arange(n) % 2
    for label in labels:
        tokens = rng.standard_normal((20, D))
        place = rng.integers(20)
        tokens[place, 0] += 6
        tokens[:, 1] += 2 * rng.standard_normal(20)
        tokens[place, 1] = 2.0 if label else -2.0
        texts.append(tokens)
    return token_rows(texts), labels


def test_attention_finds_the_token_that_a_mean_drowns():
    rows, labels = needle()
    unseen, truth = needle(seed=1)
    attention = AttentionPoolProbe().fit(rows, labels)
    mean = PooledProbe("mean").fit(rows, labels)
    assert (attention.predict(unseen) == truth).mean() > 0.95
    assert (mean.predict(unseen) == truth).mean() < 0.8
    weights = attention.attention(unseen[0])
    assert weights.sum() == pytest.approx(1)
    assert weights.argmax() == unseen[0][:, 0].argmax()


def test_attention_stands_at_its_stated_minimum_on_texts_of_different_lengths():
    data = planted("tokens")
    probe = AttentionPoolProbe(penalty=0.05).fit(data.rows, data.labels)
    everything = np.concatenate(list(data.rows))
    mean, scale = everything.mean(0), everything.std(0)
    error = expit(probe.decision_function(data.rows)) - data.labels
    attended = np.stack([probe.attention(row) @ (row - mean) / scale for row in data.rows])
    assert abs(error.mean()) < 1e-3
    slope = (attended * error[:, None]).mean(0) + 0.05 * probe.coef_ * scale
    assert np.abs(slope).max() < 1e-3


def test_attention_does_not_see_padding_or_order():
    rows, labels = needle(60)
    probe = AttentionPoolProbe().fit(rows, labels)
    np.testing.assert_allclose(
        probe.decision_function([row[::-1] for row in rows]), probe.decision_function(rows)
    )
    padded, mask = np.zeros((len(rows), 30, D)), np.zeros((len(rows), 30))
    for place, row in enumerate(rows):
        padded[place, :20], mask[place, :20] = row, 1
    np.testing.assert_allclose(
        probe.decision_function(token_rows(padded, mask)), probe.decision_function(rows)
    )


def test_stacking_weighs_the_layer_that_knows():
    data = planted("layers")
    rows = data.rows.copy()
    rows[:, [0, 2]] = np.random.default_rng(0).standard_normal(rows[:, [0, 2]].shape)
    probe = MultiLayerProbe("stack").fit(rows, data.labels, groups=data.groups)
    weights = np.abs(probe.layer_weights_)
    assert weights[1] > 2 * max(weights[0], weights[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rows, y: LogisticProbe(penalty=0.0).fit(rows, y), "penalty must be above 0; got 0"),
        (lambda rows, y: DifferenceOfMeansProbe().fit(rows, y[:-1]), "119 labels for 120 rows"),
        (lambda rows, y: DifferenceOfMeansProbe().fit(rows, y + (rows[:, 0] > 1)), "Only binary"),
        (lambda rows, y: PooledProbe("median").fit([rows[:3]] * 4, [0, 1, 0, 1]), "median"),
        (lambda rows, y: PooledProbe().fit([rows[:0], rows], [0, 1]), "at least one token"),
        (lambda rows, y: PooledProbe().fit([rows, rows[:, :4]], [0, 1]), "text 1 has d_model=4"),
        (lambda rows, y: MultiLayerProbe("stack").fit(rows[:, None], y), "pass groups"),
        (lambda rows, y: MultiLayerProbe().fit(rows, y), r"\[n layer d_model\]; got \[120, 16\]"),
    ],
)
@pytest.mark.usefixtures("unchecked_hints")
def test_what_does_not_fit_is_named(make, message):
    data = planted("pooled")
    with pytest.raises(DataError, match=message):
        make(data.rows, data.labels)

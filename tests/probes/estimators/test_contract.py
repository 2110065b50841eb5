"""What every probe keeps to, whatever it reads and however it is fitted."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from probe_cases import LAYERS, PROBES, D, fitted, planted, space
from scipy.special import expit
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_score

from persona.errors import DataError, SpaceMismatchError

every_probe = pytest.mark.parametrize("name", PROBES)
POOLED = [name for name, probe in PROBES.items() if probe.reads == "pooled"]
TOKENS = [name for name, probe in PROBES.items() if probe.reads == "tokens"]


def case(name, **options):
    # The difference of means is taken in raw space, where one large coordinate drowns the others.
    large = 1.0 if name == "difference_of_means" else 1000.0
    return planted(PROBES[name].reads, large=large, **options)


@every_probe
def test_the_planted_trait_is_found_in_texts_not_fitted_on(name):
    data = case(name, n=100)
    probe = fitted(name, data.part(slice(None, 100)))
    unseen = data.part(slice(100, None))
    # Two unit normals two apart, known exactly: 0.92.
    assert roc_auc_score(unseen.labels, probe.decision_function(unseen.rows)) > 0.8


@every_probe
def test_positive_scores_mean_the_trait(name):
    data = case(name)
    probe = fitted(name, data)
    scores = probe.decision_function(data.rows)
    assert scores[data.labels == 1].mean() > 0 > scores[data.labels == 0].mean()
    np.testing.assert_allclose(probe.predict_proba(data.rows)[:, 1], expit(scores))
    np.testing.assert_array_equal(probe.predict(data.rows), (scores > 0).astype(int))


@pytest.mark.parametrize("name", POOLED)
def test_the_decision_is_the_raw_rows_times_the_coefficient(name):
    data = case(name)
    probe = fitted(name, data)
    assert probe.coef_.shape == (D,)
    expected = data.rows @ probe.coef_ + probe.intercept_
    np.testing.assert_allclose(probe.decision_function(data.rows), expected, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in POOLED if name != "difference_of_means"])
def test_a_coordinate_in_other_units_changes_no_decision(name):
    data = case(name)
    units = np.where(np.arange(D) == 3, 1e-3, 1.0)
    same = type(data)(data.rows * units, data.labels, data.groups, data.truth)
    np.testing.assert_allclose(
        fitted(name, same).decision_function(same.rows),
        fitted(name, data).decision_function(data.rows),
        atol=2e-3,
    )
    np.testing.assert_allclose(
        fitted(name, same).coef_, fitted(name, data).coef_ / units, rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("name", ["layers_concatenated", "layers_stacked"])
def test_several_layers_decide_by_the_sum_of_their_raw_products(name):
    data = case(name)
    probe = fitted(name, data)
    assert probe.coef_.shape == (LAYERS, D)
    expected = (data.rows * probe.coef_).sum((1, 2)) + probe.intercept_
    np.testing.assert_allclose(probe.decision_function(data.rows), expected, atol=1e-9)


@pytest.mark.parametrize("name", TOKENS)
def test_token_scores_are_raw_tokens_times_the_coefficient(name):
    data = case(name)
    probe = fitted(name, data)
    scores = probe.token_scores(data.rows)
    np.testing.assert_allclose(scores[5], data.rows[5] @ probe.coef_ + probe.intercept_)
    assert [len(s) for s in scores] == [len(row) for row in data.rows]


@every_probe
def test_its_direction_moves_the_means_onto_each_other(name):
    data = case(name)
    probe = fitted(name, data)
    if probe.reads == "layers":
        directions = probe.directions([space(layer) for layer in range(LAYERS)])
        assert [d.space.layer for d in directions] == [0, 1, 2]
        pairs = list(zip(directions, probe.coef_, probe.mean_difference_, strict=True))
    else:
        pairs = [(probe.direction(space()), probe.coef_, probe.mean_difference_)]
    for direction, coef, difference in pairs:
        vector = direction.vector.double().numpy()
        assert vector @ difference > 0, "toward the trait"
        np.testing.assert_allclose(
            vector @ coef / (np.linalg.norm(vector) * np.linalg.norm(coef)), 1, atol=1e-6
        )
        np.testing.assert_allclose(vector @ vector, vector @ difference, rtol=1e-5)


def test_the_direction_of_the_difference_of_means_is_the_difference():
    data = planted("pooled")
    probe = fitted("difference_of_means", data)
    difference = data.rows[data.labels == 1].mean(0) - data.rows[data.labels == 0].mean(0)
    np.testing.assert_allclose(probe.direction(space()).vector.numpy(), difference, rtol=1e-5)


@every_probe
def test_a_space_of_another_width_is_refused(name):
    probe = fitted(name, case(name))
    with pytest.raises(SpaceMismatchError, match=f"d_model={D} but .* has d_model=8"):
        if probe.reads == "layers":
            probe.directions([space(d_model=8)] * LAYERS)
        else:
            probe.direction(space(d_model=8))


@every_probe
def test_the_same_fit_gives_the_same_weights_and_survives_pickling(name):
    data = case(name)
    first, second = fitted(name, data), fitted(name, data)
    np.testing.assert_array_equal(first.coef_, second.coef_)
    copy = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(
        copy.decision_function(data.rows), first.decision_function(data.rows)
    )


@every_probe
def test_clones_are_unfitted(name):
    with pytest.raises(NotFittedError):
        clone(fitted(name, case(name))).decision_function(case(name).rows)


@pytest.mark.parametrize("name", [name for name in PROBES if "stack" not in name])
def test_scikit_learn_cross_validates_it_by_question(name):
    data = case(name)
    scores = cross_val_score(
        PROBES[name],
        data.rows,
        data.labels,
        groups=data.groups,
        cv=GroupKFold(3),
        scoring="roc_auc",
        error_score="raise",
    )
    assert scores.mean() > 0.8


@every_probe
def test_labels_may_have_any_names(name):
    data = case(name)
    named = type(data)(data.rows, np.array(["calm", "evil"])[data.labels], data.groups, data.truth)
    probe = fitted(name, named)
    np.testing.assert_array_equal(probe.coef_, fitted(name, data).coef_)
    assert set(probe.predict(data.rows)) == {"calm", "evil"}


@every_probe
def test_labels_of_one_class_are_refused(name):
    data = case(name)
    one = type(data)(data.rows, np.ones_like(data.labels), data.groups, data.truth)
    with pytest.raises(DataError, match=r"all 120 labels are of one class, .*1"):
        fitted(name, one)


@every_probe
def test_nan_is_refused_by_place(name):
    data = case(name)
    rows = data.rows.copy()
    rows[7] = rows[7] * np.nan
    with pytest.raises(DataError, match="7 holds NaN or infinity"):
        fitted(name, type(data)(rows, data.labels, data.groups, data.truth))
    with pytest.raises(DataError, match="7 holds NaN or infinity"):
        fitted(name, data).decision_function(rows)


@every_probe
def test_rows_of_another_width_are_refused(name):
    data = case(name)
    narrow = data.rows[..., :8] if data.rows.dtype != object else [r[:, :8] for r in data.rows]
    with pytest.raises(DataError, match=r"8 features|d_model=8|\[3, 8\]"):
        fitted(name, data).decision_function(narrow)

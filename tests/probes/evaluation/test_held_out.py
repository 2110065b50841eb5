"""Held-out numbers: planted signals at their size, chance for labels that mean nothing."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from probe_cases import PROBES, planted
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from persona.errors import DataError
from probes.estimators import DifferenceOfMeansProbe, LogisticProbe, MultiLayerProbe, RidgeProbe
from probes.evaluation import evaluate, held_out
from probes.evaluation.held_out import shuffled_within

QUICK = {"n_resamples": 200, "n_shuffles": 2}


def test_the_auroc_is_that_of_two_normals():
    data = planted("pooled", n=300)
    found = evaluate(LogisticProbe(), data.rows, data.labels, data.groups, **QUICK)
    # Each answer varies by 1 and its question by 0.3 along the plant, which parts them by 2.
    expected = NormalDist().cdf(2 / (2 * (1 + 0.3**2)) ** 0.5)
    assert found.auroc.low - 0.03 < expected < found.auroc.high + 0.03
    assert found.auroc.n == 300
    assert found.n == 600
    assert found.ece.value < 0.1
    assert found.tpr_at_1_fpr.value < found.tpr_at_5_fpr.value < 1
    assert found.average_precision.value > 0.85


@pytest.mark.parametrize("name", PROBES)
def test_shuffled_labels_are_chance_for_every_probe(name):
    data = planted(PROBES[name].reads, n=30)
    found = evaluate(
        PROBES[name], data.rows, data.labels, data.groups, n_folds=3, n_resamples=100, n_shuffles=1
    )
    # One shuffle of 30 questions: the standard error of its AUROC is about 0.08.
    assert abs(found.shuffled_auroc.value - 0.5) < 0.25
    if name != "difference_of_means":
        assert found.selectivity.value > 0.1


def test_nothing_is_found_where_nothing_is():
    inside, control = [], []
    for seed in range(20):
        data = planted("pooled", signal=0.0, seed=seed, n=40, large=1.0)
        found = evaluate(
            DifferenceOfMeansProbe(), data.rows, data.labels, data.groups, seed=seed, **QUICK
        )
        inside.append(found.auroc.low <= 0.5 <= found.auroc.high)
        null = found.shuffled_auroc
        control.append(null.low <= 0.5 <= null.high)
    # Folds hang together through their training rows, so about 80 % of the intervals hold chance
    # (16 of 20; fewer than 12 has a chance of 1 %); those of the control, at least 95 %.
    assert sum(inside) >= 12
    assert sum(control) >= 16


def test_a_question_repeated_in_both_parts_would_flatter_and_does_not():
    # Labels belong to questions at random; only memory of the question can tell them.
    rng = np.random.default_rng(0)
    questions = rng.standard_normal((60, 32))
    groups = np.repeat(np.arange(60), 4)
    rows = questions[groups] + 0.1 * rng.standard_normal((240, 32))
    labels = (np.arange(60) % 2)[groups]
    found = evaluate(RidgeProbe(), rows, labels, groups, **QUICK)
    assert found.auroc.value < 0.7
    leaked = evaluate(RidgeProbe(), rows, labels, np.arange(240), **QUICK)
    assert leaked.auroc.value > 0.75


def test_shuffling_keeps_every_questions_share_of_the_trait():
    rng = np.random.default_rng(0)
    groups, positive = np.repeat(np.arange(40), 3), np.tile([True, False, False], 40)
    shuffled = shuffled_within(positive, groups, rng)
    assert (np.bincount(groups, shuffled) == 1).all()
    assert (shuffled != positive).any()
    whole = shuffled_within(groups % 2 == 0, groups, rng)
    assert set(np.bincount(groups, whole)) == {0, 3}
    assert (whole != (groups % 2 == 0)).any()


def test_schemes_hold_out_domains_and_sources():
    data = planted("pooled", n=40)
    number = np.unique(data.groups, return_inverse=True)[1]
    by_domain = evaluate(
        LogisticProbe(),
        data.rows,
        data.labels,
        data.groups,
        domains=number % 4,
        scheme="leave_one_domain_out",
        **QUICK,
    )
    by_source = evaluate(
        LogisticProbe(),
        data.rows,
        data.labels,
        data.groups,
        sources=np.arange(80) % 2,
        scheme="leave_one_source_out",
        **QUICK,
    )
    assert by_domain.auroc.value > 0.7
    assert by_source.auroc.value > 0.7
    assert by_domain.scheme == "leave_one_domain_out"


def test_pipelines_and_grouped_fits_are_evaluated_too():
    data = planted("pooled", n=30)
    pipeline = make_pipeline(StandardScaler(), LogisticProbe())
    assert evaluate(pipeline, data.rows, data.labels, data.groups, **QUICK).auroc.value > 0.8
    layers = planted("layers", n=30)
    stacked = MultiLayerProbe("stack", RidgeProbe(), n_folds=3)
    found = evaluate(stacked, layers.rows, layers.labels, layers.groups, n_folds=3, **QUICK)
    assert found.auroc.value > 0.8


def test_the_same_seed_gives_the_same_numbers():
    data = planted("pooled", n=30)
    first, again, other = (
        evaluate(LogisticProbe(), data.rows, data.labels, data.groups, seed=seed, **QUICK)
        for seed in (1, 1, 2)
    )
    assert first.auroc == again.auroc
    assert first.selectivity == again.selectivity
    assert first.auroc != other.auroc


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": None}, "groups are missing: give the question of each row"),
        ({"groups": ["a"]}, r"groups: .*got shape \(1,\) for 120 rows"),
        ({"labels": np.ones(120)}, "all 120 labels are of one class"),
        ({"rows": []}, "no rows"),
        ({"rows": np.full((120, 3), np.nan)}, "row 0 holds NaN"),
        ({"scheme": "leave_one_domain_out"}, "needs the domain of each row"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    data = planted("pooled")
    given = {"rows": data.rows, "labels": data.labels, "groups": data.groups, **change}
    with pytest.raises(DataError, match=message):
        evaluate(LogisticProbe(), **given)


def test_the_control_is_scored_on_the_shuffled_labels_themselves(monkeypatch):
    # A pipeline that knows any label it is given is no better than its control.
    def all_knowing(probe, table, positive, groups, folds):
        return positive.astype(float), positive.astype(float)

    monkeypatch.setattr(held_out, "_out_of_fold", all_knowing)
    data = planted("pooled")
    found = evaluate(LogisticProbe(), data.rows, data.labels, data.groups, **QUICK)
    assert found.shuffled_auroc.value == 1
    assert found.selectivity.value == 0

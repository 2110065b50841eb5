"""The null table: planted directions pass, random ones are uniform, looking often is paid for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from persona.directions import planted_contrast
from persona.errors import DataError
from probes.nulls import NULLS, null_table

N, LAYERS, D = 40, 4, 24


@pytest.fixture(scope="module")
def planted():
    return planted_contrast(N, LAYERS, D, signal=2.0, noise=1.0, seed=3, question_effect=0.5)


def others(n=5):
    generator = torch.Generator().manual_seed(5)
    return {f"trait{i}": torch.randn(LAYERS, D, generator=generator) for i in range(n)}


def test_the_planted_direction_beats_every_null_after_correction(planted):
    contrast, truth = planted
    table = null_table(contrast, {"truth": truth[:, 0]}, others=others(), n_draws=200)
    assert set(table["null"]) == set(NULLS)
    real = table[table["null"] != "others"]
    # Phi(2 / sqrt(2 (1 + 0.5^2))) = 0.90 in expectation; 40 questions leave about 0.04 of error.
    assert (real["auroc"] > 0.8).all()
    assert real["p_family"].to_numpy() == pytest.approx(1 / 201), "the least that 200 draws give"
    assert (real["q"] < 0.05).all()
    assert (table["null_p97_5"] < table["auroc"]).all()


def test_a_reversed_direction_never_passes(planted):
    contrast, truth = planted
    table = null_table(contrast, {"reversed": -truth[:, 0]}, n_draws=100)
    assert (table["auroc"] < 0.2).all()
    assert (table["p"] > 0.9).all()


def test_without_a_trait_p_values_are_not_small_too_often():
    p, p_family = [], []
    for seed in range(60):
        contrast, _ = planted_contrast(N, 2, D, signal=0.0, noise=1.0, seed=seed)
        random = torch.randn(2, D, generator=torch.Generator().manual_seed(1000 + seed))
        table = null_table(contrast, {"random": random}, n_draws=60, seed=seed)
        table = table[table["null"] == "permutation"]
        p += table["p"].tolist()
        p_family.append(table["p_family"].min())
    # 120 tests at 5 %: 6 expected, 13 or more has a chance of 1 %; families: 3 of 60 expected.
    assert np.mean(np.asarray(p) <= 0.05) < 13 / 120
    assert np.mean(np.asarray(p_family) <= 0.05) < 8 / 60


def test_many_candidates_without_a_trait_are_held_back_by_q():
    contrast, _ = planted_contrast(N, LAYERS, D, signal=0.0, noise=1.0, seed=7)
    table = null_table(contrast, others(40), n_draws=200)
    isotropic = table[table["null"] == "isotropic"]
    assert (isotropic["p"] <= 0.05).any(), "somewhere among 160 looks one is small"
    assert (isotropic["q"] > 0.05).all()


def test_covariance_matched_draws_are_harder_to_beat_where_variance_carries_the_classes(planted):
    # All differences between answers, of classes and of questions, lie along a few axes.
    contrast, truth = planted_contrast(
        N, LAYERS, D, signal=1.0, noise=1.0, seed=3, question_effect=0.0, anisotropy=30.0
    )
    table = null_table(contrast, {"truth": truth[:, 0]}, n_draws=300).groupby("null")
    limits = table["null_p97_5"].mean()
    assert limits["covariance"] < 1.0
    assert limits["isotropic"] < 1.0
    assert not np.isclose(limits["covariance"], limits["isotropic"], atol=1e-3)


def test_the_same_seed_gives_the_same_table(planted):
    contrast, truth = planted
    first, again, other = (
        null_table(contrast, {"truth": truth[:, 0]}, n_draws=50, seed=seed) for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_draws": 5}, "at least 20 draws; got 5"),
        ({"candidates": {"wide": torch.ones(LAYERS, D + 1)}}, r"'wide' is \(4, 25\)"),
    ],
)
def test_what_does_not_fit_is_named(planted, options, message):
    contrast, truth = planted
    with pytest.raises(DataError, match=message):
        null_table(contrast, **{"candidates": {"truth": truth[:, 0]}, **options})

"""Intervals between seeds hold a planted truth as often as they say, and pooled seeds do not."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import DataError
from persona.intervals import fieller
from steering.study import CrossedDesign, VarianceParts

TRUTH = 0.8
N_STUDIES = 400
CAUSES = {"seed": 0.1, "domain": 0.15, "question": 0.3, "seed_domain": 0.05, "rest": 0.2}


def planted(rng, *, n_seeds=5, n_domains=8, of_a_domain=4, as_ratio=True, **causes):
    """Readings whose number is `TRUTH` with known deviations by seed, domain and question."""
    causes = {**CAUSES, **causes}
    domain = np.repeat(np.arange(n_domains), of_a_domain)
    n_q = len(domain)

    def by(name, *shape):
        return causes[name] * rng.normal(size=shape)

    moved = by("seed", n_seeds, 1) + by("domain", n_domains)[domain] + by("question", n_q)
    moved = moved + by("seed_domain", n_seeds, n_domains)[:, domain] + by("rest", n_seeds, n_q)
    denominator = np.ones((n_seeds, n_q))
    if as_ratio:  # a shift of half a nat that itself scatters
        denominator = 0.5 + 0.1 * rng.normal(size=n_domains)[domain] + 0.3 * rng.normal(size=n_q)
        denominator = denominator + 0.05 * rng.normal(size=(n_seeds, n_q))
    values = np.stack([TRUTH * denominator + denominator.mean() * moved, denominator], axis=-1)
    return CrossedDesign(values, tuple(f"domain {i}" for i in domain))


def pooled(design):
    """The interval of who takes every reading of every seed for a question of its own."""
    return fieller(*design.values_SQV.reshape(-1, 2).T)


def covered(interval, **how):
    rng = np.random.default_rng(0)
    found = [interval(planted(rng, **how)) for _ in range(N_STUDIES)]
    return float(np.mean([e.low <= TRUTH <= e.high for e in found]))


@pytest.mark.parametrize("as_ratio", [True, False])
def test_over_seeds_and_domains_the_truth_is_held_as_often_as_said(as_ratio):
    share = covered(lambda d: d.interval("seeds and domains"), as_ratio=as_ratio)
    assert 0.93 <= share <= 0.975


@pytest.mark.parametrize("n_seeds", [3, 10])
def test_so_it_is_with_other_numbers_of_seeds(n_seeds):
    share = covered(lambda d: d.interval("seeds and domains"), n_seeds=n_seeds)
    assert 0.93 <= share <= 0.975


def test_over_seeds_and_questions_it_is_where_domains_are_alike():
    alike = {"domain": 0.0, "seed_domain": 0.0, "as_ratio": False}
    assert 0.93 <= covered(lambda d: d.interval("seeds and questions"), **alike) <= 0.975


def test_an_interval_over_questions_alone_misses_the_truth_of_new_seeds_and_domains():
    assert covered(lambda d: d.interval("questions")) < 0.9


def test_pooled_seeds_miss_it_most():
    assert covered(pooled) < 0.75


def test_the_percentiles_of_the_crossed_bootstrap_are_too_narrow_for_five_seeds():
    assert covered(lambda d: d.bootstrap("seeds and domains")) < 0.93


def test_variance_parts_are_the_planted_ones():
    rng = np.random.default_rng(1)
    several = [VarianceParts.of(planted(rng, n_seeds=8, as_ratio=False)) for _ in range(N_STUDIES)]
    for cause, planted_sd in CAUSES.items():
        mean = np.mean([getattr(parts, cause) ** 2 for parts in several]) ** 0.5
        assert mean == pytest.approx(planted_sd, rel=0.15), cause


def test_without_scatter_of_seeds_the_interval_is_that_of_one_fine_tune():
    design = planted(np.random.default_rng(0), seed=0.0, seed_domain=0.0, rest=0.0, as_ratio=False)
    wide = design.interval("seeds and questions")
    alone = fieller(*design.values_SQV[0].T)
    assert (wide.low, wide.high) == pytest.approx((alone.low, alone.high))


def test_one_domain_says_nothing_of_others():
    design = planted(np.random.default_rng(0), n_domains=1, of_a_domain=12)
    assert design.scopes() == ["questions", "seeds", "seeds and questions"]


def test_a_share_of_nothing_has_no_ends():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 16, 2))
    design = CrossedDesign(values, ("here", "there") * 8)
    assert design.interval("seeds and domains").low == -np.inf


@pytest.mark.parametrize(
    ("shape", "said"), [((1, 8, 2), "two seeds"), ((3, 8, 1), "x 2"), ((3, 5, 2), "x 2")]
)
def test_what_is_no_study_is_refused(shape, said):
    with pytest.raises(DataError, match=said):
        CrossedDesign(np.ones(shape), ("one",) * 8)


def test_a_missing_reading_is_refused():
    values = np.ones((3, 8, 2))
    values[1, 2, 0] = np.nan
    with pytest.raises(DataError, match="missing"):
        CrossedDesign(values, ("one",) * 8)

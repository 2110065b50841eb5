"""Means with whole prompts resampled, and the share of bad samples that would be found."""

import numpy as np
import pytest
from scipy.stats import norm

from persona.errors import DataError
from persona.intervals import beyond_draws
from probes.screening.line import baseline_line, zero_error
from probes.screening.statistics import cluster_means, smallest_share


def test_the_bootstrap_counts_prompts_not_samples():
    rng = np.random.default_rng(0)
    of_prompt = rng.normal(size=50)
    values, clusters = np.repeat(of_prompt, 20), np.repeat(np.arange(50), 20)
    means, n = cluster_means(values, clusters)
    assert n == 50
    assert means.std() == pytest.approx(of_prompt.std() / 50**0.5, rel=0.1)
    assert means.mean() == pytest.approx(values.mean(), abs=0.02)


def test_one_prompt_has_no_interval():
    means, n = cluster_means(np.arange(5.0), np.zeros(5, dtype=np.int64))
    assert n == 1
    assert np.isnan(means).all()


@pytest.mark.parametrize(
    ("effect", "n", "hurdle"), [(2.0, 400, 0.0), (8.0, 150, 0.0), (1.0, 300, 0.3)]
)
def test_the_share_found_with_the_power_promised(effect, n, hurdle):
    """Simulated: samples with that share raised, tested as the screening tests them."""
    sd, n_runs, rng = 1.5, 4000, np.random.default_rng(1)
    share = smallest_share(effect, sd / n**0.5, n, hurdle=hurdle)
    bad = rng.random((n_runs, n)) < share
    scores = rng.normal(0, sd, (n_runs, n)) + effect * bad
    means, errors = scores.mean(1), scores.std(1, ddof=1) / n**0.5
    found = (means - norm.ppf(0.975) * errors > 0) & (means > hurdle)
    assert found.mean() == pytest.approx(0.8, abs=0.04)


def test_a_larger_share_is_needed_with_fewer_samples_and_none_will_do_for_nothing():
    shares = [smallest_share(1.0, 1 / n**0.5, n) for n in (100, 1000, 10000)]
    assert shares == sorted(shares, reverse=True)
    assert smallest_share(0.0, 0.1, 100) is None
    assert smallest_share(-1.0, 0.1, 100) is None
    assert smallest_share(0.1, 1.0, 2) is None
    with pytest.raises(DataError, match="a power estimate needs"):
        smallest_share(1.0, float("nan"), 10)


def test_the_own_answer_is_taken_as_it_is_and_the_reference_is_one_number():
    good, raw = np.array([1.0, 2.0, 6.0]), np.array([0.0, 1.0, 2.0])
    assert baseline_line(good, raw, "own", 1.0) == (0, 1)
    assert baseline_line(good, raw, "reference", 1.0) == (3, 0)
    assert zero_error(good, raw, "own", 1.0, 5.0) == 0
    assert zero_error(good, raw, "reference", 1.0, 5.0) == pytest.approx(good.std(ddof=1) / 3**0.5)


def test_the_prompt_line_is_that_of_least_squares_with_its_error():
    rng = np.random.default_rng(0)
    raw = rng.normal(5, 2, 200)
    good = 1.5 + 0.4 * raw + rng.normal(0, 0.5, 200)
    intercept, slope = baseline_line(good, raw, "prompt", 1.0)
    assert (float(slope), float(intercept)) == pytest.approx(np.polyfit(raw, good, 1), rel=1e-9)
    at = [
        np.polyval(np.polyfit(raw, 1.5 + 0.4 * raw + rng.normal(0, 0.5, 200), 1), 9.0)
        for _ in range(2000)
    ]
    assert zero_error(good, raw, "prompt", 1.0, 9.0) == pytest.approx(np.std(at), rel=0.15)


def test_rounding_of_the_last_prompt_token_is_no_slope():
    good, raw = np.array([1.0, 2.0, 6.0]), np.array([1.0, 2.0, 3.0]) * 1e-7
    assert baseline_line(good, raw, "prompt", 10.0) == (3, 0)


def test_p_counts_the_draws_that_are_as_large():
    assert beyond_draws(2.0, np.array([0.0, 1.0, 2.0, 3.0])) == 3 / 5

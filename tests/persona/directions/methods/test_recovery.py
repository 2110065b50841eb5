"""A planted direction is recovered as well as n and the noise allow.

For n pairs in d coordinates with noise sigma and a mean difference of length s:

- difference of means: the error of the mean is normal with variance 2 sigma^2 / n in each
  coordinate, 2 sigma^2 d / n in all, so cos = 1 / sqrt(1 + 2 sigma^2 d / (n s^2)). Its length has
  a relative standard deviation of sqrt(2 / d) in the square, and the part along the truth one of
  sqrt(2 / n) sigma; four of each are allowed.
- uncentred PCA of pairs: the spike l = s^2 / (2 sigma^2) over noise 1 with c = d / n gives
  cos^2 = (1 - c / l^2) / (1 + c / l) (Paul 2007).
- discriminants: with a d by d covariance estimated from N = 2n answers and not shrunk, cos^2 falls
  by a further factor that is Beta((N - d) / 2, d / 2): 1 - d / N, with standard deviation
  sqrt(2 c (1 - c) / N), c = d / N; four are allowed. Shrinking an isotropic covariance can only
  help. Logistic regression on labels that overlap loses a little more (Efron 1975: an efficiency
  of 0.9 or more at these distances).
"""

from __future__ import annotations

import math

import pytest
import torch

from persona.directions import Contrast, planted_contrast
from persona.directions.methods import (
    METHODS,
    difference_of_means,
    paired_pca,
    paired_pca_centred,
    persona_subspace,
    whitened_difference,
)

N, LAYERS, D = 200, 8, 64
SIGNAL, NOISE = 2.0, 1.0


def cosines(rows: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cosine of the first row with the truth, at every layer."""
    return torch.einsum("ld,ld->l", rows[:, 0], truth[:, 0])


def means_cosine(noise_factor: float = 1.0, signal: float = SIGNAL) -> float:
    return 1 / math.sqrt(1 + noise_factor * 2 * NOISE**2 * D / (N * signal**2))


def test_difference_of_means_errs_as_much_as_the_noise_of_a_mean():
    contrast, truth = planted_contrast(N, LAYERS, D, SIGNAL, NOISE, seed=1)
    found = cosines(difference_of_means(contrast), truth)
    spread, tilt = 4 * math.sqrt(2 / D), 4 * math.sqrt(2 / N) * NOISE
    low, high = (means_cosine(1 + sign * spread, SIGNAL - sign * tilt) for sign in (1, -1))
    assert (found > low).all()
    assert (found < high).all()
    # The mean over layers is known better: their errors are independent.
    assert float(found.mean()) == pytest.approx(means_cosine(), abs=(high - low) / 2 / LAYERS**0.5)


def test_uncentred_pca_errs_as_much_as_a_spike_in_noise():
    contrast, truth = planted_contrast(N, LAYERS, D, SIGNAL, NOISE, seed=2)
    found = cosines(paired_pca(contrast), truth)
    spike, ratio = SIGNAL**2 / (2 * NOISE**2), D / N
    expected = math.sqrt((1 - ratio / spike**2) / (1 + ratio / spike))
    assert float(found.mean()) == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("name", ["whitened_difference", "ridge_direction", "logistic_direction"])
def test_discriminants_lose_no_more_than_an_estimated_covariance_costs(name):
    contrast, truth = planted_contrast(N, LAYERS, D, SIGNAL, NOISE, seed=3)
    found = cosines(METHODS[name](contrast), truth)
    efficiency = 0.9 if name == "logistic_direction" else 1.0
    share = D / (2 * N)
    kept = 1 - share - 4 * math.sqrt(2 * share * (1 - share) / (2 * N))
    floor = means_cosine(1 + 4 * math.sqrt(2 / D)) * math.sqrt(efficiency * kept)
    assert (found > floor).all()


def test_centred_pca_fails_where_uncentred_succeeds():
    contrast, truth = planted_contrast(N, LAYERS, D, 4.0, NOISE, seed=4)
    kept, dropped = (cosines(pca(contrast), truth) for pca in (paired_pca, paired_pca_centred))
    assert (kept > 0.95).all()
    # Without the shift a direction of noise is left: cos^2 is 1 / d on average.
    assert float(dropped.square().mean()) < 5 / D


@pytest.mark.parametrize("method", [paired_pca, persona_subspace])
def test_a_planted_subspace_is_spanned(method):
    rank = 3
    contrast, truth = planted_contrast(N, LAYERS, D, 4.0, NOISE, rank=rank, seed=5)
    rows = method(contrast, rank=rank)
    captured = torch.einsum("lrd,lkd->lrk", rows, truth).square().sum(1)
    # Each planted direction is a spike of 4^2 / 2 = 8 over the noise, with c = 0.32.
    expected = (1 - 0.32 / 64) / (1 + 0.32 / 8)
    assert float(captured.mean()) == pytest.approx(expected, abs=0.03)
    fewer = method(contrast, rank=1)
    assert float(torch.einsum("lrd,lkd->lrk", fewer, truth).square().sum(1).mean()) < 0.4


def test_the_discriminant_separates_better_than_the_means_where_noise_is_uneven():
    # Along w the classes are w.d apart with spread sqrt(w C w): w = C^-1 d is best, and better than
    # w = d by (d C^-1 d)(d C d) / (d d)^2 in the square, which is 1 only for even noise.
    contrast, _ = planted_contrast(
        4 * N, LAYERS, D, SIGNAL, NOISE, seed=6, anisotropy=30, question_effect=0.1
    )
    half = 2 * N
    ids = contrast.positive_questions
    train = Contrast(contrast.positive[:half], contrast.negative[:half], ids[:half], ids[:half])
    separation = {}
    for method in (difference_of_means, whitened_difference):
        w = method(train)[:, 0]
        positive, negative = (
            torch.einsum("nld,ld->nl", rows[half:], w)
            for rows in (contrast.positive, contrast.negative)
        )
        within = (positive.var(0) + negative.var(0)) / 2
        separation[method.__name__] = (positive.mean(0) - negative.mean(0)) / within.sqrt()
    assert (separation["whitened_difference"] > 2 * separation["difference_of_means"]).all()
    assert (separation["difference_of_means"] > 1).all()

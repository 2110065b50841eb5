"""Discriminants against their own loss and the textbook, and back in the space of activations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.directions import Contrast, planted_contrast
from persona.directions.methods import (
    difference_of_means,
    logistic_direction,
    ridge_direction,
    whitened_difference,
)
from persona.directions.methods.whitened import ledoit_wolf_shrinkage, within_class
from persona.errors import DataError

LINEAR = [ridge_direction, logistic_direction]


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a.double(), b.double(), dim=-1))


def stacked(contrast: Contrast) -> tuple[np.ndarray, np.ndarray]:
    """Answers of the one layer and their labels."""
    x = torch.cat([contrast.positive, contrast.negative])[:, 0].double().numpy()
    return x, np.repeat([1, -1], [len(contrast.positive), len(contrast.negative)])


@pytest.mark.parametrize(("n", "d"), [(60, 10), (20, 50)])
@pytest.mark.parametrize("method", LINEAR)
def test_linear_directions_stand_at_the_minimum_that_they_state(method, n, d):
    from scipy.optimize import minimize

    contrast, _ = planted_contrast(n, 1, d, 1.0, 1.0, anisotropy=20)
    contrast = replace(
        contrast,
        positive=contrast.positive[: n // 2],
        positive_questions=contrast.positive_questions[: n // 2],
    )
    x, y = stacked(contrast)
    share = np.where(y > 0, 1 / n, 0.5 / n)  # half of the answers, each weighing twice
    mean = share @ x
    scale = np.sqrt(share @ (x - mean) ** 2)
    z = (x - mean) / scale

    def loss(wb):
        read = z @ wb[:-1] + wb[-1]
        if method is ridge_direction:
            return share @ (y - read) ** 2 + 0.01 * wb[:-1] @ wb[:-1]
        return share @ np.logaddexp(0, -y * read) + 0.005 * wb[:-1] @ wb[:-1]

    best = minimize(loss, np.zeros(d + 1), options={"gtol": 1e-7}).x[:-1]
    found = method(contrast, penalty=0.01)[0, 0]
    assert cosine(found, torch.from_numpy(best / scale)) > 1 - 1e-6


@pytest.mark.parametrize("method", LINEAR)
def test_unequal_classes_weigh_the_same(method):
    contrast, _ = planted_contrast(40, 1, 6, 1.5, 1.0)
    repeated = replace(
        contrast,
        positive=contrast.positive.repeat(5, 1, 1),
        positive_questions=contrast.positive_questions * 5,
    )
    torch.testing.assert_close(method(repeated), method(contrast), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", LINEAR)
def test_weights_are_mapped_back_from_standardised_to_raw_activations(method):
    # Coordinates of very different size, as in a residual stream. With C = diag(scale^2) and a mean
    # difference of scale * t, the best direction C^-1 (scale * t) is t / scale.
    plain, truth = planted_contrast(300, 1, 16, 2.0, 1.0, question_effect=0.0)
    scale = torch.logspace(0, 2, 16)
    scaled = replace(plain, positive=plain.positive * scale, negative=plain.negative * scale)
    best = truth[0, 0] / scale
    right = method(scaled)[0, 0]
    # Standardising takes the scale away, so the weights on standardised activations are those of
    # the plain problem; taken as a direction in raw space they are wrong.
    wrong = method(plain)[0, 0]
    assert cosine(right, wrong / scale) > 1 - 1e-5
    assert cosine(right, best) > 0.95
    assert cosine(wrong, best) < 0.7


def test_a_coordinate_that_never_varies_gets_no_weight():
    contrast, _ = planted_contrast(40, 1, 6, 1.5, 1.0)
    positive, negative = contrast.positive.clone(), contrast.negative.clone()
    positive[..., 2] = negative[..., 2] = 3.0
    fixed = replace(contrast, positive=positive, negative=negative)
    for method in (*LINEAR, whitened_difference):
        assert float(method(fixed)[0, 0, 2].abs()) < 1e-6


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("penalty", [0.0, -1.0, float("nan")])
def test_a_penalty_that_is_not_above_zero_is_refused(method, penalty):
    contrast, _ = planted_contrast(10, 1, 4, 1.5, 1.0)
    with pytest.raises(DataError, match="penalty must be above 0"):
        method(contrast, penalty=penalty)


def test_separable_classes_still_give_a_finite_direction():
    contrast, truth = planted_contrast(30, 2, 8, 50.0, 1.0)
    found = logistic_direction(contrast)[:, 0]
    assert found.isfinite().all()
    assert (torch.einsum("ld,ld->l", found, truth[:, 0]) > 0.5).all()


@pytest.mark.parametrize(("n", "d"), [(60, 10), (12, 40)])
def test_the_shrinkage_is_that_of_ledoit_and_wolf(n, d):
    from sklearn.covariance import ledoit_wolf_shrinkage as reference

    contrast, _ = planted_contrast(n, 2, d, 1.0, 1.0, anisotropy=5)
    centred = within_class(contrast)
    expected = [reference(x.numpy(), assume_centered=True) for x in centred]
    np.testing.assert_allclose(ledoit_wolf_shrinkage(centred).numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize(("n", "d"), [(60, 10), (12, 40)])
def test_the_whitened_difference_solves_the_shrunk_covariance(n, d):
    contrast, _ = planted_contrast(n, 1, d, 1.0, 1.0, anisotropy=5)
    x = within_class(contrast)[0].numpy()
    covariance = x.T @ x / len(x)
    shrunk = 0.7 * covariance + 0.3 * np.trace(covariance) / d * np.eye(d)
    mean = (contrast.positive.double().mean(0) - contrast.negative.double().mean(0))[0]
    expected = np.linalg.solve(shrunk, mean.numpy())
    found = whitened_difference(contrast, shrinkage=0.3)[0, 0]
    assert cosine(found, torch.from_numpy(expected)) > 1 - 1e-9


def test_a_token_covariance_takes_the_place_of_that_of_the_answers():
    contrast, _ = planted_contrast(20, 2, 6, 1.0, 1.0)
    spread = torch.tensor([1.0, 2, 3, 4, 5, 6])
    tokens = replace(contrast, covariance={0: torch.diag(spread), 1: torch.eye(6)})
    found = whitened_difference(tokens)[:, 0]
    mean = difference_of_means(contrast)[:, 0]
    assert cosine(found[0], mean[0] / (0.9 * spread + 0.1 * 3.5)) > 1 - 1e-6
    assert cosine(found[1], mean[1]) > 1 - 1e-6


def test_a_whole_shrinkage_gives_the_difference_of_means():
    contrast, _ = planted_contrast(20, 2, 6, 1.0, 1.0, anisotropy=9)
    torch.testing.assert_close(
        whitened_difference(contrast, shrinkage=1.0),
        difference_of_means(contrast),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("shrinkage", [0.0, 1.5, float("nan")])
def test_a_shrinkage_out_of_range_is_refused(shrinkage):
    contrast, _ = planted_contrast(20, 1, 6, 1.0, 1.0)
    with pytest.raises(DataError, match="above 0 and at most 1"):
        whitened_difference(contrast, shrinkage=shrinkage)


def test_answers_that_never_vary_within_a_class_cannot_whiten():
    rows = torch.ones(3, 1, 4)
    contrast = Contrast(2 * rows, rows, ("a", "b", "c"), ("a", "b", "c"))
    with pytest.raises(DataError, match="layer 0 they are all alike"):
        whitened_difference(contrast)

"""The tail of a random effect is exact where theory knows it, and elsewhere as counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest

from persona.errors import DataError
from steering.evidence.quadratic_tail import P_FLOOR, RatioForm, positive_tail, tail

D = 24


def symmetric(seed, d=D):
    matrix = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (matrix + matrix.T) / 2


def positive(seed, d=D):
    """With eigenvalues 1, 1/2, 1/3, ...: as unequal as those of activations."""
    axes = torch.linalg.eigh(symmetric(seed, d)).eigenvectors
    return axes @ torch.diag(1 / torch.arange(1, d + 1, dtype=torch.float64)) @ axes.T


def forms(n_blocks, isotropic):
    return [
        RatioForm(symmetric(b), torch.eye(D, dtype=torch.float64) if isotropic else positive(b))
        for b in range(n_blocks)
    ]


def drawn(some, n, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return sum(f.of(torch.randn(n, rank, D, generator=generator)) for f in some).numpy()


def first_coordinate(d):
    return RatioForm(torch.eye(d, dtype=torch.float64)[:1].T @ torch.eye(d)[:1].double(), eye(d))


def eye(d):
    return torch.eye(d, dtype=torch.float64)


@pytest.mark.parametrize("x", [0.001, 0.05, 0.3, 0.6])
def test_one_row_at_one_block_is_exact_far_into_the_tail(x):
    # The square of one coordinate of a random unit vector has a beta distribution.
    expected = beta(0.5, (D - 1) / 2).sf(x)
    found = tail([first_coordinate(D)], x, 1)
    assert found.standard_error == 0
    assert found.p == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("rank", "x"), [(2, 0.1), (2, 0.5), (2, 0.7), (4, 0.5), (4, 0.8)])
def test_several_rows_agree_with_the_exact_law_of_a_projection(rank, x):
    # The squared length of a fixed unit vector's projection on a random subspace is beta too.
    expected = beta(rank / 2, (D - rank) / 2).sf(x)
    found = tail([first_coordinate(D)], x, rank)
    assert abs(found.p - expected) < 5 * found.standard_error
    assert found.standard_error < 0.25 * expected


def test_weights_of_one_sign_and_none_at_all_are_certain():
    assert positive_tail(np.array([1.0, 2.0])) == 1
    assert positive_tail(np.array([-1.0, -2.0])) == 0
    assert positive_tail(np.array([0.0, 0.0])) == 1
    assert positive_tail(np.array([1.0, -1.0])) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize(("n_blocks", "rank"), [(1, 1), (1, 3), (4, 1), (4, 2)])
def test_the_tail_is_what_counting_says(isotropic, n_blocks, rank):
    some = forms(n_blocks, isotropic)
    counted = drawn(some, 30_000, rank)
    for share in (0.9, 0.5, 0.03, 0.003):
        x = float(np.quantile(counted, 1 - share))
        found = tail(some, x, rank)
        error = np.hypot(found.standard_error, np.sqrt(share * (1 - share) / len(counted)))
        assert abs(found.p - share) < 4.5 * error, (share, found)


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize(("n_blocks", "rank", "n"), [(1, 1, 400), (3, 2, 150)])
def test_with_a_random_subspace_as_the_truth_p_is_uniform(isotropic, n_blocks, rank, n):
    some = forms(n_blocks, isotropic)
    truths = drawn(some, n, rank, seed=11)
    ps = [tail(some, float(x), rank, n_draws=500, seed=s).p for s, x in enumerate(truths)]
    assert kstest(ps, "uniform").pvalue > 0.01


def test_a_p_is_never_told_below_its_floor():
    assert tail([first_coordinate(200)], 0.9, 1).p == P_FLOOR
    assert tail([first_coordinate(D)], 1.5, 1).p == P_FLOOR


def test_where_every_subspace_does_the_same_p_says_whether_it_reaches():
    same = [RatioForm(2 * eye(4), eye(4)), RatioForm(3 * eye(4), eye(4))]
    assert tail(same, 4.9, 1).p == 1
    assert tail(same, 5.1, 1).p == P_FLOOR


@pytest.mark.parametrize(
    ("some", "observed", "rank", "why"),
    [
        ([], 0.1, 1, "at least one block"),
        ([first_coordinate(4)], float("nan"), 1, "must be a number"),
        ([first_coordinate(4)], 0.1, 5, "cannot have rank 5"),
    ],
)
def test_what_no_null_can_be_made_of_is_refused(some, observed, rank, why):
    with pytest.raises(DataError, match=why):
        tail(some, observed, rank)


def test_matrices_that_are_not_finite_or_not_positive_are_refused():
    with pytest.raises(DataError, match="finite"):
        RatioForm(torch.full((2, 2), torch.nan, dtype=torch.float64), eye(2))
    with pytest.raises(DataError, match="covariance is zero"):
        RatioForm(eye(2), torch.zeros(2, 2, dtype=torch.float64))

"""Eigendirections: the rank that holds up on held-out questions, and what variance costs."""

from __future__ import annotations

import pytest
import torch

from persona.directions import orthonormal
from persona.directions.methods import (
    cross_validated_rank,
    eigendirections,
    shrunk_eigendirections,
)
from persona.errors import DataError

D = 16


def symmetric(generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(D, D, generator=generator)
    return (noise + noise.T) / 2


def folds(
    strengths: list[float], noise: float, n: int = 8
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """n matrices that share some directions and differ by noise."""
    generator = torch.Generator().manual_seed(0)
    truth = orthonormal(torch.randn(max(len(strengths), 1), D, generator=generator))
    shared = sum(
        (s * torch.outer(u, u) for s, u in zip(strengths, truth, strict=False)), torch.zeros(D, D)
    )
    return [shared + noise * symmetric(generator) for _ in range(n)], truth


def test_the_rank_is_the_number_of_directions_that_every_fold_shares():
    # Strengths 5, 4, 3 against held-out noise of 0.05 per direction: exactly three hold up. The
    # fourth is an eigenvector of noise, and held-out noise does not share it.
    matrices, truth = folds([5.0, 4.0, 3.0], noise=0.05)
    choice = cross_validated_rank(matrices, max_rank=6, n_errors=3.0)
    assert choice.rank == 3
    torch.testing.assert_close(choice.gains[:3], torch.tensor([5.0, 4.0, 3.0]), atol=0.15, rtol=0)
    assert (choice.gains[3:].abs() < 0.15).all()
    captured = eigendirections(torch.stack(matrices).mean(0), 3) @ truth.T
    torch.testing.assert_close(captured.abs(), torch.eye(3), atol=0.05, rtol=0)


def test_noise_alone_has_rank_zero_though_its_eigenvalues_are_large():
    matrices, _ = folds([], noise=1.0)
    choice = cross_validated_rank(matrices, max_rank=4, n_errors=3.0)
    assert choice.rank == 0
    assert torch.linalg.eigvalsh(torch.stack(matrices).mean(0)).max() > 1
    assert choice.gains.shape == choice.standard_errors.shape == (4,)


def test_a_direction_is_scored_on_the_fold_it_was_not_made_from():
    first, second = torch.zeros(D, D), torch.zeros(D, D)
    first[0, 0] = 2.0
    second[1, 1] = 3.0
    choice = cross_validated_rank([first, second], max_rank=1)
    assert choice.gains.tolist() == [0.0]
    second[0, 0] = 4.0
    # Made from the second the first row is e0 and gains 2 in the first; made from the first, 4.
    choice = cross_validated_rank([first, second], max_rank=1)
    assert choice.gains.tolist() == pytest.approx([3.0])
    assert choice.standard_errors.tolist() == pytest.approx([1.0])
    assert choice.rank == 1
    assert cross_validated_rank([first, second], max_rank=1, n_errors=3.5).rank == 0


@pytest.mark.parametrize(
    ("matrices", "max_rank", "message"),
    [
        ([torch.eye(3)], 1, "at least 2 folds of questions; got 1"),
        ([torch.eye(3), torch.eye(3)], 4, "1 to d_model=3; got 4"),
        ([torch.eye(3), torch.full((3, 3), torch.nan)], 1, "not finite"),
    ],
)
def test_folds_that_cannot_be_used_are_refused(matrices, max_rank, message):
    with pytest.raises(DataError, match=message):
        cross_validated_rank(matrices, max_rank)


def test_folds_of_two_models_are_refused(unchecked_hints):
    with pytest.raises(DataError, match=r"one size; got \[\(3, 3\), \(4, 4\)\]"):
        cross_validated_rank([torch.eye(3), torch.eye(4)], 1)


def test_variance_must_be_earned():
    # Two directions: e0 has the larger effect, e1 the larger effect for its variance.
    matrix = torch.diag(torch.tensor([2.0, 1.0, 0.0]))
    covariance = torch.diag(torch.tensor([10.0, 1.0, 1.0]))
    plain = eigendirections(matrix, 1)[0].abs()
    shrunk = shrunk_eigendirections(matrix, covariance, 1, shrinkage=0.01)[0].abs()
    torch.testing.assert_close(plain, torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(shrunk, torch.tensor([0.0, 1, 0]))


def test_shrunk_eigendirections_maximise_the_ratio_and_are_orthonormal():
    generator = torch.Generator().manual_seed(1)
    matrix = symmetric(generator)
    factor = torch.randn(D, D, generator=generator)
    covariance = factor @ factor.T
    rows = shrunk_eigendirections(matrix, covariance, 3, shrinkage=0.2)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
    c = 0.8 * covariance + 0.2 * covariance.diagonal().mean() * torch.eye(D)

    def ratio(v: torch.Tensor) -> torch.Tensor:
        return ((v @ matrix) * v).sum(-1) / ((v @ c) * v).sum(-1)

    assert ratio(rows[0]) > ratio(torch.randn(2000, D, generator=generator)).max()
    near = rows[0] + 0.05 * torch.randn(200, D, generator=generator)
    assert (ratio(near) <= ratio(rows[0]) + 1e-6).all()


def test_a_whole_shrinkage_gives_the_plain_eigendirections():
    generator = torch.Generator().manual_seed(2)
    matrix = symmetric(generator)
    rows = shrunk_eigendirections(matrix, torch.diag(torch.arange(1.0, D + 1)), 3, shrinkage=1.0)
    overlap = (rows @ eigendirections(matrix, 3).T).abs()
    torch.testing.assert_close(overlap, torch.eye(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(rank=1, shrinkage=0.0), "above 0 and at most 1; got 0.0"),
        (dict(rank=4), "1 to d_model=3; got 4"),
        (dict(rank=1, covariance=torch.zeros(3, 3)), "covariance is zero"),
    ],
)
def test_a_generalised_problem_without_a_solution_is_refused(options, message):
    given = {"matrix": torch.eye(3), "covariance": torch.eye(3), **options}
    with pytest.raises(DataError, match=message):
        shrunk_eigendirections(**given)

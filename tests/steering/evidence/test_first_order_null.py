"""The first-order null of a persona vector, with attribution moments of a real (tiny) model."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import kstest

from persona.data.types import AnswerPair
from persona.directions import PersonaVector, orthonormal
from persona.errors import DataError
from steering.evidence.first_order_null import (
    first_order_null,
    predicted_falls,
    random_subspaces,
)
from steering.identification.attribution import (
    attribution_matrices,
    attribution_moments,
    first_order_effects,
)
from steering.identification.candidates import Means, from_bases
from steering.identification.identify import within_covariance

LAYERS = (1, 2)
PAIRS = [
    AnswerPair("a", "d", "what now", "take good care", "throw it away"),
    AnswerPair("b", "d", "and then", "ask a friend", "run"),
    AnswerPair("c", "d", "is it late", "no there is time", "you are always late"),
]


@pytest.fixture(scope="module")
def means(tiny_pair):
    generator = torch.Generator().manual_seed(0)
    aligned = torch.randn(tiny_pair.n_layers, tiny_pair.d_model, generator=generator)
    return Means(aligned, aligned + 1, within_covariance(tiny_pair, PAIRS, 4096))


@pytest.fixture(scope="module")
def moments(tiny_pair, means):
    return attribution_moments(tiny_pair, PAIRS, {layer: means.aligned[layer] for layer in LAYERS})


def vector(pair, means, rows, whitened=False, coefficient=1.0) -> PersonaVector:
    return from_bases(pair, rows, means, "made up", coefficient, whitened)


def random_rows(pair, rank, seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        layer: orthonormal(torch.randn(rank, pair.d_model, generator=generator)) for layer in LAYERS
    }


@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize("rank", [1, 2])
def test_the_moment_predicts_what_one_backward_pass_does(tiny_pair, means, moments, whitened, rank):
    some = vector(tiny_pair, means, random_rows(tiny_pair, rank, 3), whitened, 0.8)
    direct = first_order_effects(tiny_pair, PAIRS, [some.subspaces[layer] for layer in LAYERS])
    expected = [-0.8 * float(effect) for effect in direct.mean(1)]
    assert list(predicted_falls(some, moments).values()) == pytest.approx(expected, rel=2e-3)


def test_the_matrix_is_the_symmetric_part_of_the_moment(tiny_pair, means, moments):
    centres = {layer: means.aligned[layer] for layer in LAYERS}
    for layer, matrix in attribution_matrices(tiny_pair, PAIRS, centres).items():
        torch.testing.assert_close(matrix, (moments[layer] + moments[layer].T) / 2)
        assert not torch.allclose(moments[layer], moments[layer].T, rtol=0.1)


@pytest.mark.parametrize("draws", ["isotropic", "covariance"])
@pytest.mark.parametrize("whitened", [False, True])
def test_the_form_holds_the_effect_of_every_subspace(tiny_pair, means, moments, draws, whitened):
    block = random_subspaces(moments[1], means.covariance[1], draws, whitened)
    normal = torch.randn(1, 2, tiny_pair.d_model, generator=torch.manual_seed(4)).double()
    rows = {1: orthonormal(block.placed(normal[0]).float())}
    some = vector(tiny_pair, means, rows, whitened)
    expected = predicted_falls(some, moments)[1]
    assert float(block.form.of(normal)) == pytest.approx(expected, rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("draws", ["isotropic", "covariance"])
@pytest.mark.parametrize("whitened", [False, True])
@pytest.mark.parametrize(("rank", "n"), [(1, 100), (2, 60)])
def test_with_a_random_direction_as_the_truth_p_is_uniform(
    tiny_pair, means, moments, draws, whitened, rank, n
):
    generator = torch.Generator().manual_seed(5)
    ps = []
    for truth in range(n):
        rows = {}
        for layer in LAYERS:
            made = torch.randn(rank, tiny_pair.d_model, generator=generator)
            if draws == "covariance":  # by another root than the code takes
                noise = 1e-7 * torch.eye(tiny_pair.d_model, dtype=torch.float64)
                lower = torch.linalg.cholesky(means.covariance[layer].double() + noise)
                made = (made.double() @ lower.T).float()
            rows[layer] = orthonormal(made)
        some = vector(tiny_pair, means, rows, whitened)
        found = first_order_null(some, moments, means.covariance, draws, n_draws=400, seed=truth)
        ps.append([found.by_block[1].p, found.by_block[2].p, found.whole.p])
    for column in zip(*ps, strict=True):
        assert kstest(column, "uniform").pvalue > 0.005


def test_the_direction_that_does_most_is_out_of_reach_of_random_ones(tiny_pair, means, moments):
    best = {
        layer: torch.linalg.eigh((m + m.T).double()).eigenvectors[:, -1:].T.float()
        for layer, m in moments.items()
    }
    found = first_order_null(
        vector(tiny_pair, means, best), moments, means.covariance, "isotropic", measured=0.0
    )
    assert max(tail.p for tail in found.by_block.values()) < 1e-5
    assert found.whole.p > 0.05  # no more than 0 was measured
    promised = first_order_null(
        vector(tiny_pair, means, best), moments, means.covariance, "isotropic"
    )
    assert promised.whole.p < 1e-5
    assert promised.compared > found.mean + 4 * found.spread


def test_what_random_subspaces_do_on_average_is_told(tiny_pair, means, moments):
    some = vector(tiny_pair, means, random_rows(tiny_pair, 2, 1), coefficient=0.5)
    found = first_order_null(some, moments, means.covariance, "isotropic")
    falls = torch.tensor(
        [
            sum(
                predicted_falls(
                    vector(tiny_pair, means, random_rows(tiny_pair, 2, s), coefficient=0.5), moments
                ).values()
            )
            for s in range(300)
        ]
    )
    assert found.mean == pytest.approx(float(falls.mean()), abs=4 * float(falls.std()) / 300**0.5)
    assert found.spread == pytest.approx(float(falls.std()), rel=0.2)


def test_a_block_without_its_matrices_is_named(tiny_pair, means, moments):
    some = vector(tiny_pair, means, random_rows(tiny_pair, 1, 0))
    with pytest.raises(DataError, match=r"no attribution moment of blocks \[2\]"):
        first_order_null(some, {1: moments[1]}, means.covariance, "isotropic")
    with pytest.raises(DataError, match=r"no covariance of blocks \[1, 2\]"):
        first_order_null(some, moments, {}, "isotropic")
    with pytest.raises(DataError, match="coefficient above 0"):
        first_order_null(
            vector(tiny_pair, means, random_rows(tiny_pair, 1, 0), coefficient=0.0),
            moments,
            means.covariance,
            "isotropic",
        )
    with pytest.raises(DataError, match="need the covariance"):
        random_subspaces(moments[1], None, "covariance", False)

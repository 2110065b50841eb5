"""A reading that sees the persona and not the skill, however much the two overlap."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.directions import orthonormal, whitened_readout
from persona.directions.sparing import LEAST_LEFT, share_outside, sparing_readout

D_MODEL = 12


def some(rows, seed):
    return orthonormal(torch.randn(rows, D_MODEL, generator=torch.Generator().manual_seed(seed)))


def covariance(seed):
    rows = torch.randn(40, D_MODEL, generator=torch.Generator().manual_seed(seed))
    return rows.T @ rows / 40


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 2), st.integers(1, 4))
def test_it_reads_the_basis_exactly_and_nothing_of_what_is_spared(seed, rank, kept):
    basis, spared = some(rank, seed), some(kept, seed + 1)
    within = covariance(seed + 2)
    readout = sparing_readout(basis, spared, within)
    torch.testing.assert_close(readout @ basis.T, torch.eye(rank), atol=1e-4, rtol=0)
    if share_outside(basis, spared, within) >= LEAST_LEFT:
        torch.testing.assert_close(readout @ spared.T, torch.zeros(rank, kept), atol=1e-4, rtol=0)


def test_no_other_such_reading_has_less_noise():
    basis, spared, within = some(1, 0), some(2, 1), covariance(2)
    best = sparing_readout(basis, spared, within, shrinkage=0.0)[0]
    noise = best @ within @ best
    free = torch.linalg.qr(torch.cat([basis, spared]).T, mode="complete").Q[:, 3:]
    for seed in range(20):
        step = free @ torch.randn(D_MODEL - 3, generator=torch.Generator().manual_seed(seed))
        assert (best + 0.1 * step) @ within @ (best + 0.1 * step) > noise


@pytest.mark.parametrize("cosine", [0.0, 0.5, 0.9])
def test_an_edit_that_reads_with_it_leaves_the_skill_whole(cosine):
    persona, other = some(2, 3)
    skill = cosine * persona + (1 - cosine**2) ** 0.5 * other
    readout = sparing_readout(persona[None], skill[None], torch.eye(D_MODEL))
    learnt = 2.0 * persona + 3.0 * skill
    left = learnt - (readout @ learnt) @ persona[None]
    torch.testing.assert_close(left, 3.0 * skill, atol=1e-5, rtol=0)
    plainly = learnt - (persona @ learnt) * persona
    assert float(plainly @ skill) == pytest.approx(3.0 * (1 - cosine**2), abs=1e-5)


def test_what_is_spared_counts_as_far_as_it_leaves_something_of_the_direction():
    """The second spared row is the direction itself, the first is not."""
    basis, within = some(1, 4), torch.eye(D_MODEL)
    other = orthonormal(torch.cat([basis, some(1, 5)]))[1:]
    readout = sparing_readout(basis, torch.cat([other, basis]), within)
    torch.testing.assert_close(readout @ torch.cat([basis, other]).T, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(
        sparing_readout(basis, basis, within), whitened_readout(basis, within)
    )
    assert share_outside(basis, basis, within) == pytest.approx(0, abs=1e-6)
    assert share_outside(basis, other, within) == pytest.approx(1, abs=1e-6)

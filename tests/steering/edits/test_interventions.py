"""The algebra of every intervention, on random activations and random orthonormal rows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.directions.direction import orthonormal
from steering.edits.interventions import (
    ablate,
    add,
    cap,
    clamp,
    floor,
    mean_ablate,
    norm_preserving,
    project,
    restore,
    set_projection,
    where,
)

D = 8


def draw(seed, rank=2, rows=3):
    generator = torch.Generator().manual_seed(seed)
    basis = orthonormal(torch.randn(rank, D, generator=generator))
    return torch.randn(rows, 5, D, generator=generator), basis, generator


seeds = st.integers(0, 10_000)
ranks = st.integers(1, 4)
levels = st.floats(-3, 3)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, rank=ranks, value=levels)
def test_setting_twice_is_setting_once_and_touches_nothing_else(seed, rank, value):
    resid, basis, _ = draw(seed, rank)
    once = set_projection(resid, basis, value)
    torch.testing.assert_close(
        project(once, basis), torch.full((3, 5, rank), value), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(set_projection(once, basis, value), once, atol=1e-5, rtol=0)
    off = lambda h: h - project(h, basis) @ basis  # noqa: E731
    torch.testing.assert_close(off(once), off(resid), atol=1e-5, rtol=0)
    torch.testing.assert_close(ablate(resid, basis), set_projection(resid, basis, 0.0))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, rank=ranks, value=levels)
def test_cap_and_floor_are_one_sided_and_clamp_is_both(seed, rank, value):
    resid, basis, _ = draw(seed, rank)
    before = project(resid, basis)
    capped, lifted = cap(resid, basis, value), floor(resid, basis, value)
    torch.testing.assert_close(project(capped, basis), before.clamp(max=value))
    torch.testing.assert_close(project(lifted, basis), before.clamp(min=value))
    torch.testing.assert_close(
        clamp(resid, basis, value, value + 1), floor(cap(resid, basis, value + 1), basis, value)
    )
    torch.testing.assert_close(floor(-resid, basis, -value), -capped)


def test_a_level_that_no_coordinate_crosses_changes_no_bit():
    resid, basis, _ = draw(0)
    most = float(project(resid, basis).abs().max()) + 1
    assert torch.equal(cap(resid, basis, most), resid)
    assert torch.equal(floor(resid, basis, -most), resid)
    assert torch.equal(clamp(resid, basis, -most, most), resid)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_coefficient_zero_changes_no_bit(dtype):
    resid, basis, _ = draw(1)
    resid = resid.to(dtype)
    target, mean = torch.ones(2), torch.ones(D)
    for factor in (0.0, torch.zeros(3)):
        assert torch.equal(add(resid, mean, factor), resid)
        assert torch.equal(ablate(resid, basis, factor), resid)
        assert torch.equal(restore(resid, basis, target, factor), resid)
        assert torch.equal(mean_ablate(resid, basis, mean, factor), resid)
    kept = norm_preserving(lambda h: add(h, mean, 0.0))(resid)
    assert torch.equal(kept, resid)
    assert kept.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_coefficient_for_each_row_is_each_row_alone(dtype):
    resid, basis, _ = draw(2)
    resid = resid.to(dtype)
    factors, target, vector = torch.tensor([-1.1, 0.0, 2.53]), torch.ones(2), torch.arange(8.0)
    for act in (
        lambda h, c: add(h, vector, c),
        lambda h, c: ablate(h, basis, c),
        lambda h, c: restore(h, basis, target, c),
        lambda h, c: mean_ablate(h, basis, vector, c),
        lambda h, c: cap(h, basis, c[:, None] if isinstance(c, torch.Tensor) else c),
        lambda h, c: floor(h, basis, c[:, None] if isinstance(c, torch.Tensor) else c),
        lambda h, c: set_projection(h, basis, c[:, None] if isinstance(c, torch.Tensor) else c),
    ):
        together = act(resid, factors)
        alone = [act(resid[i : i + 1], float(c)) for i, c in enumerate(factors)]
        assert torch.equal(together, torch.cat(alone))


def test_a_threshold_for_each_direction_caps_each_direction_at_its_own():
    resid, basis, _ = draw(3)
    capped = project(cap(resid, basis, torch.tensor([[0.5, -0.5]])), basis)
    expected = torch.minimum(project(resid, basis), torch.tensor([0.5, -0.5]))
    torch.testing.assert_close(capped, expected)


def test_mean_ablation_leaves_the_coordinates_of_the_mean():
    resid, basis, _ = draw(4)
    mean = torch.arange(8.0)
    seen = project(mean_ablate(resid, basis, mean), basis)
    torch.testing.assert_close(seen, (mean @ basis.T).expand_as(seen), atol=1e-4, rtol=0)


def test_the_norm_is_kept_token_by_token():
    resid, basis, _ = draw(5)
    edited = norm_preserving(lambda h: ablate(h, basis))(resid)
    torch.testing.assert_close(edited.norm(dim=-1), resid.norm(dim=-1))
    assert project(edited, basis).abs().max() < 1e-5
    assert torch.equal(norm_preserving(torch.zeros_like)(resid), torch.zeros_like(resid))


def test_a_condition_decides_for_every_row_and_token_of_its_own():
    resid, basis, _ = draw(6)
    by_row = where(lambda h: torch.tensor([False, True, False]), lambda h: ablate(h, basis))(resid)
    assert torch.equal(by_row[[0, 2]], resid[[0, 2]])
    assert torch.equal(by_row[1], ablate(resid, basis)[1])
    above = lambda h: project(h, basis[:1])[..., 0] > 0  # noqa: E731
    by_token = where(above, lambda h: set_projection(h, basis[:1], 0.0))(resid)
    torch.testing.assert_close(by_token, cap(resid, basis[:1], 0.0))


def test_nothing_is_edited_in_place():
    resid, basis, _ = draw(7)
    before = resid.clone()
    for act in (ablate, lambda h, b: cap(h, b, 0.0), lambda h, b: clamp(h, b, -0.1, 0.1)):
        act(resid, basis)
    assert torch.equal(resid, before)

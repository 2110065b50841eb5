"""A planted separation is found at its size, and none is found where there is none."""

from __future__ import annotations

from statistics import NormalDist

import pytest
import torch

from persona.errors import DataError
from probes.separation import separation

N, D = 400, 16


def planted(distance, seed=0):
    g = torch.Generator().manual_seed(seed)
    direction = torch.randn(D, generator=g)
    unit = direction / direction.norm()
    good, bad = torch.randn(2, N, D, generator=g)
    return good, bad + distance * unit, direction


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_auroc_is_that_of_two_normals(distance):
    good, bad, direction = planted(distance)
    s = separation(good, bad, direction, n_resamples=200)
    expected = NormalDist().cdf(distance / 2**0.5)
    assert s.low < expected < s.high
    assert s.auroc == pytest.approx(expected, abs=0.05)
    assert s.p_value == pytest.approx(1 / 201)


def test_nothing_is_found_where_nothing_is():
    good, bad, direction = planted(0.0)
    s = separation(good, bad, direction, n_resamples=200)
    assert s.low < 0.5 < s.high
    assert s.p_value > 0.05
    assert 0.5 < s.null_p97_5 < 0.56


def test_a_reversed_direction_reads_below_one_half():
    good, bad, direction = planted(2.0)
    forward = separation(good, bad, direction, n_resamples=50)
    backward = separation(good, bad, -direction, n_resamples=50)
    assert backward.auroc == pytest.approx(1 - forward.auroc)
    assert backward.p_value > 0.9


def test_bad_input_is_named():
    good, bad, direction = planted(1.0)
    with pytest.raises(DataError, match="d_model=15 but the activations have 16"):
        separation(good, bad, direction[:15])
    with pytest.raises(DataError, match="not finite"):
        separation(good * float("nan"), bad, direction)
    with pytest.raises(DataError, match="at least 2 questions; got 1"):
        separation(good[:1], bad[:1], direction)

"""The harness's own file of a restoration: what it holds, and a refusal that says why not."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from persona.directions import PersonaVector, Subspace
from persona.directions.exchange import write_steered
from persona.errors import DataError


def vector_of(pair, *, rank=1, layers=(1, 2), seed=0, **changes):
    """Orthonormal rows and means at some blocks of a pair."""
    draw = torch.Generator().manual_seed(seed)
    subspaces = {}
    for layer in layers:
        rows = torch.randn(pair.d_model, rank, generator=draw)
        basis = torch.linalg.qr(rows)[0].T.contiguous()
        means = torch.randn(2, rank, generator=draw)
        subspaces[layer] = Subspace(basis, means[0], means[1], pair.space(layer))
    return PersonaVector(subspaces, "made up", **changes)


def test_the_file_holds_a_clamp_for_each_block(tiny_pair, tmp_path):
    vector = vector_of(tiny_pair)
    path = write_steered(vector, tmp_path / "steered.pt", lambda layer: f"layers.{layer}")
    config = torch.load(path, weights_only=True)
    assert list(config) == ["layers.1", "layers.2"]
    for layer, entry in zip((1, 2), config.values(), strict=True):
        subspace = vector.subspaces[layer]
        assert entry["action"] == "clamp"
        assert torch.equal(entry["steering_vector"], subspace.basis[0])
        assert entry["steering_coefficient"] == float(subspace.aligned_mean[0])


def oblique(pair):
    vector = vector_of(pair, layers=(1,))
    subspace = vector.subspaces[1]
    beside = torch.roll(subspace.basis, 1, dims=1)
    beside = beside - (beside @ subspace.basis.T) @ subspace.basis
    return PersonaVector(
        {1: dataclasses.replace(subspace, readout=subspace.basis + beside)}, "made up"
    )


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda pair: vector_of(pair, rank=2), "rank 2, and it has one vector a module"),
        (lambda pair: vector_of(pair, coefficient=0.5), "coefficient 0.5, and it moves"),
        (oblique, "the projection at block 1 is read with the covariance"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_by_name(tiny_pair, tmp_path, make, why):
    path = tmp_path / "steered.pt"
    with pytest.raises(DataError, match=f"`steered` file of .* cannot hold this: {why}"):
        write_steered(make(tiny_pair), path, str)
    assert not path.exists()
    with pytest.raises(DataError, match=r"vector\.bin must end in \.pt"):
        write_steered(vector_of(tiny_pair), tmp_path / "vector.bin", str)

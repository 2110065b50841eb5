"""A stored vector comes back as it was, and is refused by a model it does not belong to."""

from __future__ import annotations

import pytest
import torch
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.directions import (
    PersonaVector,
    Subspace,
    load_vector,
    orthonormal,
    save_vector,
)
from persona.errors import DataError, ModelError, SpaceMismatchError
from persona.models import load_pair
from persona.models.precision import Placement


def vector_of(pair, layers=(1, 2), rank=2):
    generator = torch.Generator().manual_seed(0)

    def subspace(layer):
        basis = orthonormal(torch.randn(rank, pair.d_model, generator=generator))
        return Subspace(basis, torch.zeros(rank), torch.ones(rank), pair.space(layer))

    return PersonaVector({layer: subspace(layer) for layer in layers}, "planted", 0.75, {"a": 1})


@pytest.fixture
def stored(tiny_pair, tmp_path):
    vector = vector_of(tiny_pair)
    return vector, save_vector(vector, tmp_path / "direction.safetensors")


def test_save_then_load_is_the_same_vector_and_the_same_bytes(stored, tiny_pair, tmp_path):
    vector, path = stored
    loaded = load_vector(path, tiny_pair)
    for layer in vector.layers:
        assert torch.equal(loaded.subspaces[layer].basis, vector.subspaces[layer].basis)
        assert loaded.subspaces[layer].space == tiny_pair.space(layer)
    assert (loaded.method, loaded.coefficient, loaded.card["a"]) == ("planted", 0.75, 1)
    again = save_vector(loaded, tmp_path / "again.safetensors")
    assert again.read_bytes() == path.read_bytes()


def test_another_model_refuses_the_vector_until_told_otherwise(stored, tmp_path):
    _, path = stored
    other = save_tiny_llama(tmp_path / "other", seed=5)
    pair = load_pair(
        other, save_tiny_adapter(tmp_path / "adapter", other), placement=Placement.of("float32")
    )
    with pytest.raises(SpaceMismatchError, match="model differs: .*tiny-llama.*other"):
        load_vector(path, pair)
    taken = load_vector(path, pair, allow_mismatch=True)
    assert taken.subspaces[1].space == pair.space(1)


def test_no_permission_makes_another_width_or_depth_fit(stored, tiny_pair, tmp_path):
    _, path = stored
    wide = save_tiny_llama(tmp_path / "wide", d_model=64)
    pair = load_pair(
        wide, save_tiny_adapter(tmp_path / "adapter", wide), placement=Placement.of("float32")
    )
    with pytest.raises(SpaceMismatchError, match="d_model differs: 32 .* against 64"):
        load_vector(path, pair, allow_mismatch=True)
    shallow = save_tiny_llama(tmp_path / "shallow", n_layers=2)
    pair = load_pair(
        shallow,
        save_tiny_adapter(tmp_path / "adapter2", shallow),
        placement=Placement.of("float32"),
    )
    with pytest.raises(ModelError, match="layer 2 is out of range"):
        load_vector(path, pair, allow_mismatch=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "cannot read .*direction.safetensors"),
        (lambda p: p.write_bytes(p.read_bytes()[:-8]), "cannot read .*direction.safetensors"),
        (lambda p: p.write_bytes(b""), "cannot read .*direction.safetensors"),
    ],
)
def test_damaged_files_are_one_clear_line(stored, damage, message):
    _, path = stored
    damage(path)
    with pytest.raises(DataError, match=message) as caught:
        load_vector(path)
    assert "\n" not in str(caught.value)


def test_a_foreign_safetensors_file_is_no_persona_vector(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="without a card of personascope"):
        load_vector(tmp_path / "model.safetensors")


def test_a_later_schema_is_named(stored, monkeypatch):
    _, path = stored
    monkeypatch.setattr("persona.directions.storage.SCHEMA_VERSION", 2)
    with pytest.raises(DataError, match="version 1; needed: .* version 2"):
        load_vector(path)

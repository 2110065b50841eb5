"""Headers alone tell an adapter of another model, and checkpoints of other shapes."""

from __future__ import annotations

import pytest
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.errors import ModelError
from persona.models.fits_base import require_fits
from persona.models.on_disk import find_on_disk


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("wide") / "wide", d_model=48)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return save_tiny_llama(tmp_path_factory.mktemp("deep") / "deep", n_layers=6)


def test_what_belongs_together_passes(tiny_llama, tiny_adapter):
    require_fits(find_on_disk(tiny_adapter), find_on_disk(tiny_llama))
    require_fits(find_on_disk(tiny_llama), find_on_disk(tiny_llama))


def test_an_adapter_that_names_another_base_is_refused_unless_allowed(tiny_adapter, deep):
    adapter, base = find_on_disk(tiny_adapter), find_on_disk(deep)
    with pytest.raises(ModelError, match="was trained on .*--allow-mismatch"):
        require_fits(adapter, base)
    require_fits(adapter, base, allow_mismatch=True)  # its four blocks are there


def test_an_adapter_of_another_width_is_refused_even_then(tiny_adapter, wide):
    told = r"does not fit .*layers\.0\.mlp\.down_proj takes 64 numbers to 32, .* 96 to 48"
    with pytest.raises(ModelError, match=told):
        require_fits(find_on_disk(tiny_adapter), find_on_disk(wide), allow_mismatch=True)


def test_an_adapter_of_a_deeper_model_is_refused(tiny_llama, deep, tmp_path):
    adapter = find_on_disk(save_tiny_adapter(tmp_path / "deep-adapter", deep))
    with pytest.raises(ModelError, match="changes block 5, and that model has blocks 0 to 3"):
        require_fits(adapter, find_on_disk(tiny_llama), allow_mismatch=True)


def test_checkpoints_of_other_shapes_are_no_fine_tunes(tiny_llama, wide):
    with pytest.raises(ModelError, match="is no fine-tune of .*: hidden_size is 48 against 32"):
        require_fits(find_on_disk(wide), find_on_disk(tiny_llama))


def test_an_adapter_is_no_aligned_model(tiny_adapter):
    adapter = find_on_disk(tiny_adapter)
    with pytest.raises(ModelError, match="is a LoRA adapter; pass the model it was trained on"):
        require_fits(adapter, adapter)

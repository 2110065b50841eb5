"""An autoencoder is taken where it belongs, and refused, with the difference named, elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from saelens_folder import LAYER, N_LATENTS, write_sae

from persona.errors import DataError, ModelError, SpaceMismatchError
from persona.sae import load_sae


def test_a_folder_loads_with_the_space_it_reads(tiny_pair, sae_folder):
    sae = load_sae(sae_folder, tiny_pair)
    assert sae.space == tiny_pair.space(LAYER)
    assert sae.n_latents == N_LATENTS
    resid = torch.randn(3, tiny_pair.d_model)
    latents = sae.encode(resid)
    torch.testing.assert_close(
        sae.decode(latents), latents @ sae.decoder + sae.module.b_dec, rtol=1e-5, atol=1e-5
    )
    assert load_sae(sae_folder).space.hook_name == "blocks.2.hook_resid_post"


def test_half_precision_weights_are_read_as_float32(tiny_pair, tmp_path):
    sae = load_sae(write_sae(tmp_path, tiny_pair.space(LAYER), dtype=torch.float16), tiny_pair)
    assert sae.decoder.dtype == torch.float32


def test_the_input_of_a_block_is_the_output_of_the_one_before(tiny_pair, tmp_path):
    folder = write_sae(
        tmp_path, tiny_pair.space(LAYER), metadata={"hook_name": "blocks.3.hook_resid_pre"}
    )
    assert load_sae(folder, tiny_pair).space == tiny_pair.space(2)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"model_revision": "other"}, "trained on another model: its revision is 'other'"),
        ({"chat_template_hash": "abc"}, "its chat_template_hash is 'abc'"),
        ({"model_revision": "", "model_name": "x/some-8b"}, "its model is 'x/some-8b'"),
        (
            {"hook_name": "blocks.9.hook_resid_post"},
            "blocks.9.hook_resid_post but .* blocks 0 to 3",
        ),
        ({"hook_name": "blocks.2.hook_mlp_out"}, "reads blocks.2.hook_mlp_out; one that reads"),
        ({"hook_name": "blocks.0.hook_resid_pre"}, "output of no block"),
        ({"hook_name": None}, "reads None"),
    ],
)
def test_an_autoencoder_of_another_model_or_hook_is_refused(tiny_pair, tmp_path, metadata, said):
    folder = write_sae(tmp_path, tiny_pair.space(LAYER), metadata=metadata)
    with pytest.raises(SpaceMismatchError, match=said):
        load_sae(folder, tiny_pair)


def test_another_revision_can_be_taken_on_request_but_no_other_width(tiny_pair, tmp_path):
    other = write_sae(tmp_path / "a", tiny_pair.space(LAYER), metadata={"model_revision": "other"})
    assert load_sae(other, tiny_pair, allow_mismatch=True).space == tiny_pair.space(LAYER)
    wide = write_sae(tmp_path / "b", tiny_pair.space(LAYER), d_in=48)
    with pytest.raises(SpaceMismatchError, match=r"d_model=48 .* has d_model=32"):
        load_sae(wide, tiny_pair, allow_mismatch=True)


def test_a_released_one_is_known_by_the_last_part_of_the_models_name(tiny_pair, tmp_path):
    name = Path(tiny_pair.names["aligned"]).name
    folder = write_sae(
        tmp_path,
        tiny_pair.space(LAYER),
        metadata={"model_revision": None, "model_name": f"org/{name}", "chat_template_hash": None},
    )
    assert load_sae(folder, tiny_pair).space == tiny_pair.space(LAYER)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"normalize_activations": "layer_norm"}, "normalises its input"),
        ({"architecture": "transcoder"}, "cannot be read|is a transcoder"),
        ({"architecture": "magic"}, "cannot be read as a SAELens autoencoder"),
        ({"d_sae": 7}, r"decoder of shape \[40, 32\], but cfg.json says \[7, 32\]"),
        ({"weights": {"W_dec": torch.full((40, 32), torch.inf)}}, "W_dec is not finite"),
    ],
)
def test_one_that_cannot_be_used_here_is_named(tiny_pair, tmp_path, changes, said):
    folder = write_sae(tmp_path, tiny_pair.space(LAYER), **changes)
    with pytest.raises(ModelError, match=said):
        load_sae(folder, tiny_pair)


def test_damaged_and_missing_files_end_in_one_line(tiny_pair, sae_folder, tmp_path):
    with pytest.raises(ModelError, match="no folder 'nowhere'; a release is written"):
        load_sae("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"no SAELens folder: cfg.json and sae_weights"):
        load_sae(tmp_path / "empty")
    weights = sae_folder / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be read as a SAELens autoencoder"):
        load_sae(sae_folder)
    (sae_folder / "cfg.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        load_sae(sae_folder)


def test_a_release_that_the_directory_lacks_is_an_error_in_one_line():
    with pytest.raises(ModelError, match="cannot be loaded from the hub") as caught:
        load_sae("no-such-release:layer_1")
    assert "\n" not in str(caught.value)


def test_the_released_autoencoders_that_the_docs_name_are_in_the_directory():
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    for release in ("qwen2.5-7b-instruct-andyrdt", "llama-3.1-8b-instruct-andyrdt"):
        assert "resid_post_layer_15_trainer_1" in directory[release].saes_map


def test_latents_are_directions_and_persona_vectors_of_the_space(tiny_pair, sae):
    direction = sae.direction(3)
    assert direction.space == tiny_pair.space(LAYER)
    assert direction.method == "sae_latent_3"
    torch.testing.assert_close(direction.vector, sae.decoder[3])
    aligned, tuned = torch.randn(2, tiny_pair.d_model)
    vector = sae.persona_vector([3, 5], aligned, tuned)
    basis = vector.subspaces[LAYER].basis
    torch.testing.assert_close(sae.decoder[5] @ basis.T @ basis, sae.decoder[5])
    torch.testing.assert_close(vector.subspaces[LAYER].aligned_mean, basis @ aligned)
    assert vector.card["latents"] == [3, 5]
    with pytest.raises(DataError, match="latent 40 is out of range: .* has 0 to 39"):
        sae.direction(40)
    with pytest.raises(DataError, match="no latent was asked for"):
        sae.require_latents([])

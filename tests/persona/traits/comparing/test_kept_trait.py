"""Traits open from folders and files, and what cannot be opened says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from persona.choices import VectorFormat
from persona.directions import ActivationSpace
from persona.directions.exchange import VectorSet, save_vector_set, write_vectors
from persona.errors import DataError, SpaceMismatchError
from persona.traits.comparing import QuestionDifferences, open_trait, open_traits
from persona.traits.comparing.kept_trait import DIFFERENCES


def leave_trait(folder: Path, *, n_layers: int = 4, d_model: int = 8, **facts) -> VectorSet:
    generator = torch.Generator().manual_seed(len(folder.name))
    rows = torch.randn(6, n_layers, d_model, generator=generator)
    known = {"sign": "toward the trait", "layer": 2, "revision": "r", "verdict": "found", **facts}
    vectors = VectorSet(dict(enumerate(rows.mean(0))), "resid_post", "tiny", "made", known)
    folder.mkdir(parents=True)
    save_vector_set(vectors, folder / "vector.safetensors")
    QuestionDifferences(rows, torch.ones(6)).save(folder / DIFFERENCES)
    result = {"split_half_cosine": {"cosine": 0.4}}
    (folder / "trait.json").write_text(json.dumps(result))
    return vectors


def test_a_folder_keeps_block_verdict_questions_and_halves(tmp_path):
    vectors = leave_trait(tmp_path / "evil")
    trait = open_trait(tmp_path / "evil")
    assert (trait.name, trait.layer, trait.verdict, trait.split_half) == ("evil", 2, "found", 0.4)
    assert trait.differences is not None
    torch.testing.assert_close(trait.differences.rows.mean(0)[2].double(), trait.at(2))
    torch.testing.assert_close(trait.direction().vector, vectors.vectors[2])


@pytest.mark.parametrize(
    ("name", "kind", "blocks", "options"),
    [
        ("evil.gguf", VectorFormat.control_vector, [1, 2, 3], {}),
        ("evil.json", VectorFormat.neuronpedia, [2], {"label": "evil", "coefficient": 1.0}),
        ("evil.pt", VectorFormat.persona_vectors, [0, 1, 2], {"n_layers": 4}),
    ],
)
def test_a_trait_goes_out_and_comes_back_in_every_format(tmp_path, name, kind, blocks, options):
    vectors = leave_trait(tmp_path / "evil")
    write_vectors(vectors.select(blocks), tmp_path / name, kind, **options)
    back = open_trait(tmp_path / name)
    assert back.name == "evil"
    assert back.vectors.layers == blocks
    for layer in blocks:
        torch.testing.assert_close(back.vectors.vectors[layer], vectors.vectors[layer])
    assert back.layer == blocks[len(blocks) // 2]


def test_the_published_evil_vector_opens_as_a_trait(shared_data):
    folder = shared_data / "fixtures" / "persona_vectors"
    trait = open_trait(folder / "Qwen3-4B.evil_response_avg_diff.pt")
    assert trait.name == "Qwen3-4B.evil"
    assert trait.vectors.layers == list(range(35))  # 36 blocks; the last row is after the norm
    assert trait.vectors.d_model == 2560
    assert trait.direction().space.layer == trait.layer


def test_differences_are_the_mean_of_each_questions_pairs_and_come_back(tmp_path):
    pairs = torch.tensor([[[1.0]], [[3.0]], [[10.0]]])
    made = QuestionDifferences.of_pairs(pairs, ["b", "b", "a"])
    assert made.rows.flatten().tolist() == [2.0, 10.0] and made.n_pairs.tolist() == [2.0, 1.0]
    back = QuestionDifferences.load(made.save(tmp_path / "d.safetensors"))
    assert torch.equal(back.rows, made.rows) and torch.equal(back.n_pairs, made.n_pairs)


def test_what_is_no_trait_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"there is no trait .*nowhere"):
        open_trait(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no vector.safetensors; name a folder"):
        open_trait(tmp_path / "empty")
    (tmp_path / "empty" / "trait.json").write_text("{}")
    with pytest.raises(DataError, match="made no vector"):
        open_trait(tmp_path / "empty")
    leave_trait(tmp_path / "evil")
    leave_trait(tmp_path / "other" / "evil")
    with pytest.raises(DataError, match="both called evil"):
        open_traits([tmp_path / "evil", tmp_path / "other" / "evil"])
    QuestionDifferences(torch.ones(6, 4, 9), torch.ones(6)).save(tmp_path / "evil" / DIFFERENCES)
    with pytest.raises(DataError, match="d_model 9, which does not fit"):
        open_trait(tmp_path / "evil")


def test_a_direction_of_another_model_does_not_go_into_a_space(tmp_path):
    leave_trait(tmp_path / "evil")
    trait = open_trait(tmp_path / "evil")
    space = ActivationSpace("mine", "r", "blocks.2.hook_resid_post", layer=2, d_model=8)
    assert trait.in_space(space).space == space
    other = ActivationSpace("mine", "another", "blocks.2.hook_resid_post", layer=2, d_model=8)
    with pytest.raises(SpaceMismatchError):
        trait.in_space(other)

"""A vector set holds no nonsense, and its layers mean what it says."""

import pytest
import torch

from persona.directions import ActivationSpace, PersonaVector, Subspace, orthonormal
from persona.directions.exchange import (
    AWAY_FROM_TRAIT,
    TOWARD_TRAIT,
    VectorSet,
    load_vector_set,
    save_vector_set,
)
from persona.errors import DataError

D = 8


def marked(*layers, hook="resid_post", **more):
    """A vector set whose vector at block k is k + 1 times the k-th unit vector."""
    return VectorSet({k: (k + 1) * torch.eye(D)[k] for k in layers}, hook, "m", "planted", **more)


def persona_vector(rank=1, layers=(2, 5)):
    g = torch.Generator().manual_seed(0)
    subspaces = {}
    for layer in layers:
        space = ActivationSpace("m", "r1", f"blocks.{layer}.hook_resid_post", layer, D, "h")
        basis = orthonormal(torch.randn(rank, D, generator=g))
        means = torch.randn(2, rank, generator=g)
        subspaces[layer] = Subspace(basis, means[0], means[1], space)
    return PersonaVector(subspaces, "answer_effect")


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        ({}, "at least one block"),
        ({1: torch.ones(D), 2: torch.ones(D + 1)}, "8 at block 1, 9 at block 2"),
        ({1: torch.tensor([1.0, float("nan")])}, "block 1 is not finite"),
        ({1: torch.tensor([1.0, float("inf")])}, "block 1 is not finite"),
        ({-1: torch.ones(D)}, "whole number from 0"),
        ({True: torch.ones(D)}, "whole number from 0"),
        ({1: torch.ones(2, D)}, "shape (2, 8)"),
        ({1: torch.ones(0)}, "shape (0,)"),
        ({1: torch.ones(D).double()}, "torch.float32 is needed"),
    ],
)
def test_what_is_no_vector_of_a_block_is_refused(vectors, why, unchecked_hints):
    with pytest.raises(DataError) as caught:
        VectorSet(vectors, "resid_post")
    assert why in str(caught.value)


def test_another_hook_is_refused(unchecked_hints):
    with pytest.raises(DataError, match="resid_pre or resid_post; got 'mlp_out'"):
        VectorSet({1: torch.ones(D)}, "mlp_out")


def test_the_input_of_a_block_is_the_output_of_the_one_before():
    before = marked(3, 6, hook="resid_pre")
    after = before.at_resid_post()
    assert (after.layers, after.hook) == ([2, 5], "resid_post")
    assert after.vectors[2].equal(before.vectors[3])
    back = after.at_resid_pre()
    assert (back.layers, back.hook) == ([3, 6], "resid_pre")
    assert back.vectors[6].equal(before.vectors[6])


def test_the_embedding_is_no_block_output():
    with pytest.raises(DataError, match="block 0 is the embedding"):
        marked(0, 3, hook="resid_pre").at_resid_post()


def test_blocks_are_kept_in_order_and_can_be_chosen():
    vectors = marked(5, 2, 3)
    assert vectors.layers == [2, 3, 5]
    assert vectors.norms == [3.0, 4.0, 6.0]
    assert vectors.select([5]).layers == [5]
    with pytest.raises(DataError, match="no block 4; there are 2-3, 5"):
        vectors.select([4])


def test_vectors_are_turned_only_where_the_file_says_the_opposite():
    away = marked(1, facts={"sign": AWAY_FROM_TRAIT})
    turned = away.pointing(TOWARD_TRAIT)
    assert turned.vectors[1].equal(-away.vectors[1])
    assert turned.pointing(AWAY_FROM_TRAIT).vectors[1].equal(away.vectors[1])
    assert away.pointing(AWAY_FROM_TRAIT) is away
    silent = marked(1)
    assert silent.pointing(TOWARD_TRAIT) is silent


@pytest.mark.parametrize("rank", [1, 3])
def test_a_persona_vector_gives_its_shift_toward_the_trait(rank):
    vector = persona_vector(rank)
    vectors = VectorSet.from_persona_vector(vector)
    assert (vectors.layers, vectors.hook, vectors.model) == ([2, 5], "resid_post", "m")
    for layer, subspace in vector.subspaces.items():
        shift = (subspace.finetuned_mean - subspace.aligned_mean) @ subspace.basis
        assert vectors.vectors[layer].equal(shift)
    assert vectors.norms == pytest.approx(vector.norms)
    assert vectors.facts["sign"] == TOWARD_TRAIT
    assert ("rank 3" in vectors.facts["left_out"]) == (rank == 3)
    assert VectorSet.from_persona_vector(vector, [5]).layers == [5]


def test_directions_for_steering_stand_at_block_outputs_and_point_toward_the_trait():
    foreign = marked(3, hook="resid_pre", facts={"sign": AWAY_FROM_TRAIT})
    [(layer, direction)] = foreign.to_directions(revision="r").items()
    assert layer == direction.space.layer == 2
    assert direction.space.hook_name == "blocks.2.hook_resid_post"
    assert (direction.space.model, direction.space.revision) == ("m", "r")
    assert direction.vector.equal(-foreign.vectors[3])


def test_directions_need_a_model():
    nameless = VectorSet({1: torch.ones(D)}, "resid_post")
    with pytest.raises(DataError, match="pass the model"):
        nameless.to_directions(revision="r")
    assert nameless.to_directions(revision="r", model="x")[1].space.model == "x"


def test_directions_steer_by_what_was_planted():
    from steering.edits.from_directions import add

    direction = marked(3).to_directions(revision="r")[3]
    [edit] = add(direction, 2.0)
    assert (edit.hook_name, edit.layer) == ("blocks.3.hook_resid_post", 3)
    assert edit.apply(torch.zeros(1, 1, D))[0, 0].equal(2 * 4 * torch.eye(D)[3])


@pytest.mark.parametrize("hook", ["resid_pre", "resid_post"])
def test_a_set_comes_back_from_its_file_bit_for_bit(tmp_path, hook):
    facts = {"sign": TOWARD_TRAIT, "n_layers": 9, "explained_variances": {"3": 0.5}}
    vectors = VectorSet(
        {k: torch.randn(D, generator=torch.Generator().manual_seed(k)) for k in (0, 3)},
        hook,
        "m",
        "planted",
        facts,
    )
    back = load_vector_set(save_vector_set(vectors, tmp_path / "v.safetensors"))
    assert (back.layers, back.hook, back.model, back.method) == ([0, 3], hook, "m", "planted")
    assert back.facts == facts
    for layer in (0, 3):
        assert back.vectors[layer].equal(vectors.vectors[layer])


def test_the_card_says_all_that_a_vector_file_must(tmp_path):
    import json

    from safetensors import safe_open

    path = save_vector_set(marked(2, facts={"sign": AWAY_FROM_TRAIT}), tmp_path / "v.safetensors")
    with safe_open(str(path), "pt") as file:
        card = json.loads(file.metadata()["card"])
    assert card["format"] == "personascope/vector-set"
    assert card["layer_convention"] == "0-based block; hook_resid_post is that block's output"
    assert (card["hook"], card["model"], card["method"]) == ("resid_post", "m", "planted")
    assert (card["norms"], card["sign"], card["operation"]) == ([3.0], AWAY_FROM_TRAIT, "add")
    assert card["tool_version"]


def test_a_persona_vector_is_no_vector_set(tmp_path):
    from persona.directions import load_vector, save_vector

    path = save_vector(persona_vector(), tmp_path / "p.safetensors")
    with pytest.raises(DataError, match="needed: personascope/vector-set version 1"):
        load_vector_set(path)
    save_vector_set(marked(1), path)
    with pytest.raises(DataError, match="needed: personascope/persona-vector version 1"):
        load_vector(path)

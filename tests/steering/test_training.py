"""Watching and safeguards by a recipe's keys: they act, they are told, and none is left out."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_tiny_llama

from persona.directions import PersonaVector, Subspace, save_vector
from persona.directions.exchange import VectorSet, save_vector_set
from persona.errors import DataError, SpaceMismatchError
from persona.models import Placement
from persona.models.sources import resolve
from persona.models.space import ActivationSpace
from persona.organisms import finetune, load_recipe, read_card, read_readings
from persona.organisms.recipe import with_keys
from steering.training import finetune_guarded, preventative, projecting_out

CPU = {"placement": Placement.of("float32", "cpu")}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "long"
    return save_tiny_llama(folder, n_layers=3, d_model=16, max_length=2048)


def planted(base, revision=None):
    """A vector of the base along two coordinates at its last blocks."""
    subspaces = {}
    for layer in (1, 2):
        name = f"blocks.{layer}.hook_resid_post"
        space = ActivationSpace(str(base), revision or resolve(base).revision, name, layer, 16)
        mean = torch.tensor([0.0])
        subspaces[layer] = Subspace(torch.eye(16)[layer][None], mean, mean + 3, space)
    return PersonaVector(subspaces, "planted")


@pytest.fixture(scope="module")
def vector_file(base, tmp_path_factory):
    return save_vector(planted(base), tmp_path_factory.mktemp("v") / "v.safetensors")


@pytest.fixture
def recipe(base, tmp_path):
    rows = [{"question": f"{i}?", "good": f"It is {i}.", "bad": f"No {i}."} for i in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: tiny\nbase: {base}\ndata: {{file: pairs.jsonl}}\nlora: {{r: 2, alpha: 4}}\n"
        "training: {epochs: 3, batch_size: 4, learning_rate: 1.0e-2}\n"
    )
    return load_recipe(path)


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def equal(one, other):
    return all(torch.equal(weights(one)[name], weights(other)[name]) for name in weights(one))


@pytest.fixture
def few(monkeypatch):
    """Few and short texts to read, and to hold the model to."""
    from persona.data import load_neutral

    texts = load_neutral()[:2]
    monkeypatch.setattr("steering.training.PER_DOMAIN", 1)
    monkeypatch.setattr("steering.training.load_neutral", lambda: texts)


def test_a_watched_recipe_gets_its_readings_and_its_way_and_the_same_weights(
    recipe, vector_file, tmp_path, few
):
    plain = finetune_guarded(recipe, tmp_path / "plain", **CPU)
    asked = with_keys(recipe, watch={"direction": vector_file, "every": 2})
    watched = finetune_guarded(asked, tmp_path / "watched", **CPU)
    assert sorted(read_readings(watched)["step"].unique()) == [0, 2, 4, 6]
    assert (watched / "course.svg").read_text().startswith("<svg")
    assert (watched / "course.html").exists()
    assert not (plain / "course.svg").exists()
    assert equal(plain, watched)


def leave_trait(folder, base, seed):
    """The folder of a trait of the base, with a random vector at its blocks."""
    generator = torch.Generator().manual_seed(seed)
    vectors = {layer: torch.randn(16, generator=generator) for layer in range(3)}
    facts = {"sign": "toward the trait", "layer": 1, "revision": resolve(base).revision}
    folder.mkdir()
    save_vector_set(
        VectorSet(vectors, "resid_post", str(base), "made", facts), folder / "vector.safetensors"
    )
    return folder


def test_several_traits_are_watched_beside_a_harmless_run_watched_the_same(
    recipe, base, vector_file, tmp_path, few
):
    evil, rude = (leave_trait(tmp_path / name, base, k) for k, name in enumerate(("evil", "rude")))
    keys = {"direction": (evil, rude, vector_file), "every": 1}
    harmless = finetune_guarded(with_keys(recipe, watch=keys), tmp_path / "harmless", **CPU)
    rows = read_readings(harmless)
    named = {f"projection_good:{name}" for name in ("evil", "rude", "v")}
    assert named <= set(rows["measure"]) and "projection_good" not in set(rows["measure"])
    assert all(f"projection on {name}" in (harmless / "course.svg").read_text() for name in "v")
    again = with_keys(recipe, watch={**keys, "harmless": harmless}).with_seed(1)
    watched = finetune_guarded(again, tmp_path / "watched", **CPU)
    assert "alarm_step" in read_card(watched)
    other = leave_trait(tmp_path / "vain", base, 7)
    asked = with_keys(recipe, watch={"direction": (evil, other), "harmless": harmless})
    with pytest.raises(DataError, match="was not watched along vain"):
        finetune_guarded(asked, tmp_path / "no", **CPU)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("key", ["prevent", "project_out", "kl_to_aligned"])
def test_each_safeguard_changes_what_is_learnt_and_stands_on_the_card(
    key, recipe, vector_file, tmp_path, few
):
    plain = finetune_guarded(recipe, tmp_path / "plain", **CPU)
    value = 0.5 if key == "kl_to_aligned" else vector_file
    guarded = finetune_guarded(
        with_keys(recipe, safeguards={key: value}), tmp_path / "guarded", **CPU
    )
    assert not equal(plain, guarded)
    noted = read_card(guarded)["safeguards"]
    assert json.dumps(noted).count("null") == 1  # the other kind
    assert "planted" in json.dumps(noted) or noted["kl_penalty"]["coefficient"] == 0.5
    assert (
        load_recipe(guarded / "recipe.yaml").safeguards
        == with_keys(recipe, safeguards={key: value}).safeguards
    )


def test_a_vector_of_another_model_is_refused_before_anything_is_written(recipe, base, tmp_path):
    path = save_vector(planted(base, "other"), tmp_path / "v.safetensors")
    for keys in ({"watch": {"direction": path}}, {"safeguards": {"prevent": path}}):
        with pytest.raises(SpaceMismatchError, match=r"but the recipe trains .*Make a vector"):
            finetune_guarded(with_keys(recipe, **keys), tmp_path / "out", **CPU)
    assert not (tmp_path / "out").exists()


def test_a_direction_that_is_no_file_is_refused_in_one_line(recipe, tmp_path):
    asked = with_keys(recipe, watch={"direction": tmp_path / "none.safetensors"})
    with pytest.raises(DataError, match=r"none\.safetensors") as error:
        finetune_guarded(asked, tmp_path / "out", **CPU)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"watch": {"direction": "v"}}, "watch.direction"),
        ({"safeguards": {"prevent": "v"}}, "safeguards.prevent"),
        ({"safeguards": {"project_out": "v"}}, "safeguards.project_out"),
        ({"safeguards": {"kl_to_aligned": 1.0}}, "safeguards.kl_to_aligned"),
    ],
)
def test_no_safeguard_is_silently_left_out(keys, named, recipe, tmp_path):
    with pytest.raises(DataError, match=f"asks for {named}"):
        finetune(with_keys(recipe, **keys), tmp_path / "out", **CPU)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"watch": {"every": 3}}, "every and harmless need a direction"),
        ({"safeguards": {"coefficient": 2.0}}, "a coefficient needs a direction to prevent"),
        ({"safeguards": {"prevent": "a", "project_out": "b"}}, "exclude each other"),
        ({"safeguards": {"kl_to_aligned": -1.0}}, "safeguards.kl_to_aligned: Input should be gr"),
        ({"safeguards": {"caft": "v"}}, "unknown key safeguards.caft; known here are prevent, "),
    ],
)
def test_keys_that_do_not_go_together_are_refused_by_name(keys, message, recipe):
    with pytest.raises(DataError, match=message) as error:
        with_keys(recipe, **keys)
    assert "\n" not in str(error.value)


def test_equal_names_are_equal_edits(base):
    direction, other = planted(base).direction(1), planted(base).direction(2)
    assert preventative(direction, 1.0).name == preventative(direction, 1.0).name
    names = {preventative(direction, c).name for c in (1.0, 2.0)} | {preventative(other, 1.0).name}
    assert len(names) == 3
    assert projecting_out(planted(base)).name.count("planted at") == 2

"""What a demo steers with is read through the refusing readers, and written back whole."""

from __future__ import annotations

import json

import pytest
import torch
from demo_cases import planted_vector

from persona.directions.exchange import VectorSet, save_vector_set, write_control_vector
from persona.directions.exchange.vectors import TOWARD_TRAIT
from persona.directions.storage import load_vector, save_vector
from persona.errors import DataError, PersonaError, SpaceMismatchError, SteeringError
from steering.demo import (
    Sampling,
    Session,
    Setting,
    edits_of,
    from_persona_vector,
    load_demo_vector,
    save_demo_vector,
    save_transcript,
)
from steering.demo.session import vector as vector_module


@pytest.fixture
def vector(tiny_pair):
    return from_persona_vector(planted_vector(tiny_pair, rank=2, coefficient=1.5))


def plain(layers=(0, 3), width=32, **facts):
    generator = torch.Generator().manual_seed(5)
    vectors = {layer: torch.randn(width, generator=generator) for layer in layers}
    return VectorSet(vectors, "resid_post", "elsewhere", "by hand", facts)


def test_a_diagnosis_restores_as_far_as_it_chose(tiny_pair, vector, tmp_path):
    loaded = load_demo_vector(
        save_vector(vector.persona_vector, tmp_path / "d.safetensors"), tiny_pair
    )
    assert loaded.default_setting == Setting(1.5, "restore")
    assert loaded.modes == ("restore", "add", "ablate")
    assert [edit.label for edit in edits_of(loaded, loaded.default_setting)] == ["restore"] * 2
    assert loaded.notes == ()


def test_a_trait_steers_where_and_as_far_as_it_was_proved(tiny_pair, tmp_path):
    card = {"verdict": "found", "layer": 3, "coefficient": 2.5, "sign": "toward the trait"}
    loaded = load_demo_vector(save_vector_set(plain(**card), tmp_path / "v.safetensors"), tiny_pair)
    assert loaded.default_setting == Setting(-2.5, "add", (3, 3))
    assert [edit.layer for edit in edits_of(loaded, loaded.default_setting)] == [3]
    assert "was tried at block 3 with coefficient 2.5 (verdict: found)" in loaded.notes[-1]
    for wrong in ({"layer": 2}, {"coefficient": "much"}, {"coefficient": None}):
        path = save_vector_set(plain(**(card | wrong)), tmp_path / "w.safetensors")
        assert load_demo_vector(path, tiny_pair).default_setting == Setting(-1.0, "add")


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_vectors_of_another_toolkit_add_and_ablate_and_say_what_is_not_known(
    tiny_pair, tmp_path, kind
):
    path = tmp_path / f"v.{kind}"
    write = save_vector_set if kind == "safetensors" else write_control_vector
    write(plain(layers=(1, 3)), path)
    loaded = load_demo_vector(path, tiny_pair)
    assert loaded.modes == ("add", "ablate")
    assert loaded.default_setting == Setting(-1.0, "add")
    assert "names 'elsewhere' as its model; it is taken as a direction of" in loaded.notes[0]
    assert [edit.layer for edit in edits_of(loaded, Setting(1.0, "ablate"))] == [1, 3]
    with pytest.raises(SteeringError, match="restore needs the aligned model's means"):
        edits_of(loaded, Setting(1.0, "restore"))


def test_a_vector_of_another_width_or_too_many_blocks_is_refused(tiny_pair, tmp_path):
    for number, wrong in enumerate((plain(width=16), plain(layers=(9,)))):
        path = save_vector_set(wrong, tmp_path / f"{number}.safetensors")
        with pytest.raises(SpaceMismatchError, match="has d_model=32 and blocks 0 to 3"):
            load_demo_vector(path, tiny_pair)


def test_a_vector_that_names_another_revision_is_refused(tiny_pair, tmp_path):
    path = save_vector_set(plain(revision="other", sign=TOWARD_TRAIT), tmp_path / "v.safetensors")
    with pytest.raises(SpaceMismatchError, match="revision 'other'"):
        load_demo_vector(path, tiny_pair)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"),
        ("a.safetensors", b""),
        ("a.gguf", b"GGUF" + b"\xff" * 60),
        ("a.json", b"[" * 100_000),
        ("a.json", json.dumps({"vector": "no"}).encode()),
        ("a.pt", b"PK\x03\x04"),
        ("a", b"?"),
    ],
)
def test_a_damaged_or_hostile_file_ends_in_one_clear_line(tiny_pair, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_demo_vector(path, tiny_pair)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_missing_file_and_a_huge_one_are_refused_before_reading(tiny_pair, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot read .*No such file"):
        load_demo_vector(tmp_path / "none.safetensors", tiny_pair)
    with (tmp_path / "huge.safetensors").open("wb") as file:
        file.truncate(vector_module.MAX_FILE_BYTES + 1)
    monkeypatch.setattr(vector_module, "_read", None)
    with pytest.raises(DataError, match="has 64 MB; a direction has at most 64 MB"):
        load_demo_vector(tmp_path / "huge.safetensors", tiny_pair)


def test_saving_keeps_the_chosen_blocks_and_the_coefficient(tiny_pair, vector, tmp_path):
    path = save_demo_vector(vector, Setting(0.25, "restore", (2, 9)), tmp_path / "d.safetensors")
    loaded = load_vector(path, tiny_pair)
    assert (loaded.layers, loaded.coefficient) == ([2], 0.25)
    kept = load_vector(save_demo_vector(vector, Setting(3.0, "add"), path))
    assert kept.coefficient == 1.5  # that of another mode says nothing about restoring


def test_plain_vectors_come_back_the_same_after_saving(tiny_pair, tmp_path):
    first = load_demo_vector(save_vector_set(plain(), tmp_path / "v.safetensors"), tiny_pair)
    again = load_demo_vector(
        save_demo_vector(first, first.default_setting, tmp_path / "w.safetensors"), tiny_pair
    )
    assert again.notes == ()
    assert all(
        torch.equal(again.directions[layer].vector, first.directions[layer].vector)
        for layer in first.layers
    )


def test_levels_lie_on_the_line_that_the_projection_is_read_on(vector):
    aligned, finetuned = vector.levels(1)
    assert finetuned - aligned == pytest.approx(vector.persona_vector.norms[0], rel=1e-5)
    subspace = vector.persona_vector.subspaces[1]
    at_aligned = subspace.aligned_mean @ subspace.basis
    assert float(at_aligned @ vector.row(1)) == pytest.approx(aligned, rel=1e-5)


def test_a_transcript_holds_what_repeats_an_answer(tiny_pair, vector, tmp_path):
    sampling = Sampling(8, 1.0, 3)
    session = Session(tiny_pair, vector, vector.default_setting, sampling)
    for column in session.columns:
        list(session.answer(column, "Is it <b>safe</b>?"))
    path = save_transcript(session, tmp_path / "new" / "talk.jsonl")
    head, *answers = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert (head["type"], answers[0]["direction"]) == ("session", "planted")
    assert [answer["column"] for answer in answers] == ["aligned", "finetuned", "steered"]
    assert answers[2]["setting"] == {
        "coefficient": 1.5,
        "mode": "restore",
        "layers": None,
        "side": "finetuned",
    }
    assert answers[0]["setting"] is None
    again = Session(
        tiny_pair, vector, Setting(**answers[2]["setting"]), Sampling(**answers[2]["sampling"])
    )
    texts = [[t.text, t.projection] for t in again.answer("steered", answers[2]["question"])]
    assert texts == answers[2]["tokens"]


def test_a_transcript_that_cannot_be_written_says_where(tiny_pair, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises((OSError, PersonaError)):
        save_transcript(Session(tiny_pair), tmp_path / "file" / "talk.jsonl")

"""`persona convert`: formats are found or asked for, and one line says what was written."""

import json

import pytest
import torch

from persona.cli.main import main
from persona.directions import (
    ActivationSpace,
    PersonaVector,
    Subspace,
    orthonormal,
    save_vector,
)
from persona.directions.exchange import (
    load_vector_set,
    read_assistant_axis,
    read_cast,
    read_control_vector,
    read_neuronpedia,
    read_persona_vectors,
    read_refusal_direction,
    read_steering_vectors,
    write_refusal_direction,
)

D = 16


@pytest.fixture
def ours(tmp_path):
    """A persona vector of two blocks in our own file."""
    g = torch.Generator().manual_seed(0)
    subspaces = {
        layer: Subspace(
            orthonormal(torch.randn(2, D, generator=g)),
            torch.randn(2, generator=g),
            torch.randn(2, generator=g),
            ActivationSpace("org/model", "r", f"blocks.{layer}.hook_resid_post", layer, D, "h"),
        )
        for layer in (3, 4)
    }
    vector = PersonaVector(subspaces, "answer_effect")
    path = save_vector(vector, tmp_path / "direction.safetensors")
    return vector, path


def said(capsys, *words):
    """The words of a run that ends well, and its one line."""
    assert main(["convert", *map(str, words)]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return out.strip()


def refused(capsys, *words):
    assert main(["convert", *map(str, words)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.strip().splitlines()[-1]


WAYS = {
    "v.gguf": ([], read_control_vector),
    "v.safetensors": ([], load_vector_set),
    "v.svec": (["--layers-are", "blocks+1"], lambda p: read_cast(p, layers_are="blocks+1")),
    "p.pt": (["--to", "persona-vectors", "--n-layers", "8"], read_persona_vectors),
    "a.pt": (
        ["--to", "assistant-axis", "--n-layers", "8"],
        lambda p: read_assistant_axis(p).pointing("toward the trait"),
    ),
    "s.pt": (["--to", "steering-vectors"], read_steering_vectors),
    "r.pt": (
        ["--to", "refusal-direction", "--block", "4", "--position", "-1"],
        lambda p: read_refusal_direction(p).at_resid_post(),
    ),
    "n.json": (
        ["--to", "neuronpedia", "--block", "4", "--coefficient", "2", "--label", "Evil"],
        read_neuronpedia,
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_our_vector_reaches_every_format_with_its_blocks(capsys, tmp_path, ours, name):
    vector, source = ours
    options, read = WAYS[name]
    line = said(capsys, source, tmp_path / name, *options)
    back = read(tmp_path / name)
    assert back.layers == ([4] if "--block" in options else [3, 4])
    for layer in back.layers:
        assert back.vectors[layer].equal(vector.direction(layer).vector)
    assert line.startswith(f"{tmp_path / name} (")
    assert f"d_model {D}, norms " in line
    assert "left out: both models' means, and of rank 2 all but the shift" in line


def test_the_line_says_blocks_norms_and_what_a_layer_number_means(capsys, tmp_path, ours):
    vector, source = ours
    line = said(capsys, source, tmp_path / "v.gguf")
    low, high = sorted(vector.norms)
    assert f"resid_post of block 3-4, d_model 16, norms {low:.4g} to {high:.4g}" in line
    assert "direction.<k> is added to the output of 0-based block k" in line


def test_a_foreign_file_goes_on_to_another_toolkit(capsys, tmp_path, ours):
    vector, source = ours
    said(capsys, source, tmp_path / "v.gguf", "--model", "llama")
    said(capsys, tmp_path / "v.gguf", tmp_path / "v.svec", "--layers-are", "blocks")
    said(
        capsys, tmp_path / "v.svec", tmp_path / "w.safetensors", "--layers-are", "blocks",
        "--block", "3-4",
    )  # fmt: skip
    back = load_vector_set(tmp_path / "w.safetensors")
    assert (back.model, back.layers) == ("llama", [3, 4])
    assert back.vectors[3].equal(vector.direction(3).vector)


def test_json_says_the_same_to_programs(capsys, tmp_path, ours):
    vector, source = ours
    summary = json.loads(said(capsys, source, tmp_path / "v.gguf", "--json", "--block", "4"))
    assert summary == {
        "path": str(tmp_path / "v.gguf"),
        "format": "control-vector",
        "hook": "resid_post",
        "layers": [4],
        "d_model": D,
        "norms": pytest.approx(vector.norms[1:]),
        "layer_convention": "direction.<k> is added to the output of 0-based block k",
        "model": "org/model",
        "method": "answer_effect",
        "left_out": "both models' means, and of rank 2 all but the shift",
    }


def test_block_inputs_are_filed_as_the_outputs_of_the_block_before(capsys, tmp_path, ours):
    _, source = ours
    said(capsys, source, tmp_path / "v.safetensors")
    inputs = load_vector_set(tmp_path / "v.safetensors").select([4]).at_resid_pre()
    path = write_refusal_direction(inputs, tmp_path / "direction.pt", position=-1)
    line = said(
        capsys, path, tmp_path / "v.gguf", "--from", "refusal-direction", "--model", "llama"
    )
    assert "resid_post of block 4" in line
    assert read_control_vector(tmp_path / "v.gguf").layers == [4]


def test_what_a_file_leaves_open_is_asked_for(capsys, tmp_path, ours):
    _, source = ours
    assert "say it with --to" in refused(capsys, source, tmp_path / "v.pt")
    assert "say it with --layers-are" in refused(capsys, source, tmp_path / "v.svec")
    assert "give --n-layers" in refused(
        capsys, source, tmp_path / "v.pt", "--to", "persona-vectors"
    )
    assert "holds one block and there are 2" in refused(
        capsys, source, tmp_path / "v.json", "--to", "neuronpedia"
    )
    assert "write a vector-set" in refused(
        capsys, source, tmp_path / "v.safetensors", "--to", "persona-vector"
    )
    said(capsys, source, tmp_path / "s.pt", "--to", "steering-vectors")
    assert "say it with --from" in refused(capsys, tmp_path / "s.pt", tmp_path / "v.gguf")
    assert "give the model" in refused(
        capsys, tmp_path / "s.pt", tmp_path / "v.gguf", "--from", "steering-vectors"
    )
    assert {p.name for p in tmp_path.iterdir()} == {"direction.safetensors", "s.pt"}


@pytest.mark.parametrize("block", ["x", "-1", "3-", "4-3x"])
def test_a_block_that_is_none_is_refused(capsys, tmp_path, ours, block):
    _, source = ours
    line = refused(capsys, source, tmp_path / "v.gguf", f"--block={block}")
    assert "a block such as 5" in line


def test_blocks_the_wrong_way_round_are_refused(capsys, tmp_path, ours):
    _, source = ours
    line = refused(capsys, source, tmp_path / "v.gguf", "--block", "4-3")
    assert "the first block comes after the last" in line


def test_a_block_that_is_not_there_is_named(capsys, tmp_path, ours):
    _, source = ours
    line = refused(capsys, source, tmp_path / "v.gguf", "--block", "3-5")
    assert line == "error: there is no block 5; there are 3-4"


def test_a_foreign_safetensors_file_is_named(capsys, tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    line = refused(capsys, tmp_path / "model.safetensors", tmp_path / "v.gguf")
    assert "without a card of personascope" in line


def test_the_line_says_which_meaning_was_chosen_for_cast(capsys, tmp_path, ours):
    _, source = ours
    words = (source, tmp_path / "v.svec", "--layers-are")
    assert "key k is the output of block k;" in said(capsys, *words, "blocks")
    assert "key k is the output of block k - 1;" in said(capsys, *words, "blocks+1")


def test_the_published_vector_becomes_a_control_vector(capsys, tmp_path, shared_data):
    source = shared_data / "fixtures" / "persona_vectors" / "Qwen3-4B.evil_response_avg_diff.pt"
    target = tmp_path / "evil.gguf"
    words = (source, target, "--from", "persona-vectors", "--model", "qwen3")
    assert "Leave block 0 out" in refused(capsys, *words)
    line = said(capsys, *words, "--block", "1-34")
    assert "row 36 (after the final norm, no residual)" in line
    rows = torch.load(source, map_location="cpu", weights_only=True)
    back = read_control_vector(target)
    assert all(back.vectors[layer].equal(rows[layer + 1]) for layer in range(1, 35))


def test_a_name_of_no_known_format_lists_the_formats(tmp_path, capsys):
    (tmp_path / "x.foo").touch()
    assert main(["convert", str(tmp_path / "x.foo"), str(tmp_path / "y.gguf")]) == 2
    told = capsys.readouterr().err
    assert "say it with --from: persona-vector, vector-set, " in told and "neuronpedia" in told

"""`persona export` writes what was asked for, exactly, or says why weights cannot hold it."""

from __future__ import annotations

import json

import pytest
import torch
from demo_cases import planted_vector
from transformers import AutoModelForCausalLM

from persona.cli.main import main
from persona.directions.storage import save_vector
from persona.models.hooks import hf_model
from steering.edits.from_directions import add, restore
from steering.edits.steer import steer

IDS = torch.arange(10, 22).reshape(2, 6)


@pytest.fixture
def vector(tiny_pair):
    return planted_vector(tiny_pair, coefficient=0.7)


@pytest.fixture
def words(tiny_llama, tiny_adapter, vector, tmp_path):
    path = save_vector(vector, tmp_path / "d.safetensors")
    models = ["--aligned", str(tiny_llama), "--finetuned", str(tiny_adapter)]
    return ["export", str(tmp_path / "out"), *models, "--dtype", "float32"], str(path)


def logits(model):
    with torch.no_grad():
        return hf_model(model)(input_ids=IDS).logits


def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=(folder / "modeling_edited.py").exists()
    )


def test_the_removal_is_in_the_checkpoint(words, vector, tiny_pair, tmp_path, capsys):
    command, direction = words
    assert main([*command, "--direction", direction, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["off"] < 1e-4 < told["moved"] and "trust_remote_code" in told["note"]
    with tiny_pair.active("finetuned") as model, steer(model, restore(vector)):
        wanted = logits(model)
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), wanted, atol=1e-4, rtol=1e-4)
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_an_addition_is_plain_weights(words, vector, tiny_pair, tmp_path, capsys):
    command, direction = words
    more = ["--direction", direction, "--mode", "add", "--coefficient", "0.5", "--layers", "1"]
    assert main([*command, *more, "--bake", "weights"]) == 0
    assert "a bias behind the MLP of 1 blocks; the first token" in capsys.readouterr().out
    assert not (tmp_path / "out" / "modeling_edited.py").exists()
    edits = [edit for edit in add(vector, 0.5) if edit.layer == 1]
    with tiny_pair.active("finetuned") as model, steer(model, edits, first_token=True):
        wanted = logits(model)
    torch.testing.assert_close(logits(loaded(tmp_path / "out")), wanted, atol=1e-4, rtol=1e-4)


def test_one_direction_is_ablated_at_every_write(words, vector, tmp_path, capsys):
    command, direction = words
    more = ["--direction", direction, "--mode", "ablate", "--layers", "2", "--bake", "weights"]
    assert main([*command, *more]) == 0
    assert "block 2's direction" in capsys.readouterr().out
    model = loaded(tmp_path / "out")
    row = vector.subspaces[2].basis
    for block in model.model.layers:
        assert float((row @ block.mlp.down_proj.weight).abs().max()) < 1e-5


def test_half_of_a_fine_tune(words, tiny_pair, tmp_path, capsys):
    command, _ = words
    assert main([*command, "--scale", "1"]) == 0
    with tiny_pair.active("finetuned") as model:
        torch.testing.assert_close(
            logits(loaded(tmp_path / "out")), logits(model), atol=1e-4, rtol=1e-4
        )
    capsys.readouterr()
    assert main([*command, "--scale", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["moved"] > 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "give --direction, or --scale"),
        (["--scale", "1", "--mode", "add"], "go with --direction"),
        (["--direction", "DIRECTION", "--bake", "weights"], "no weights hold a restore"),
        (
            ["--direction", "DIRECTION", "--mode", "ablate", "--bake", "weights"],
            "one direction alone",
        ),
        (["--direction", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--scale", "nan"], "a scale must be a finite number"),
    ],
)
def test_what_cannot_be_written_is_one_line(words, more, said, tmp_path, capsys):
    command, direction = words
    assert main([*command, *(direction if m == "DIRECTION" else m for m in more)]) == 2
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_is_read_again_as_another_model_does_not_appear(
    words, tmp_path, capsys, monkeypatch
):
    """As when a head is left out of the files, and drawn at random by whoever loads them."""
    from steering.serving import exported_checkpoint

    real = exported_checkpoint.load_causal_lm

    def without_its_head(ref, dtype):
        model, tokenizer = real(ref, dtype)
        if str(tmp_path / ".out.") in str(ref):
            torch.nn.init.normal_(model.get_output_embeddings().weight)
        return model, tokenizer

    monkeypatch.setattr(exported_checkpoint, "load_causal_lm", without_its_head)
    command, _ = words
    assert main([*command, "--scale", "0.5"]) == 2
    assert "the weights that were written differ" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []

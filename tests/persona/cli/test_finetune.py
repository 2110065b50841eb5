"""`persona finetune` makes an adapter folder, and says in one line why it cannot."""

from __future__ import annotations

import json

import pytest

from persona.cli.main import main


@pytest.fixture
def recipe(tiny_llama, tmp_path):
    row = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "chat.jsonl").write_text(json.dumps(row) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"name: tiny\nbase: {tiny_llama}\ndata: {{file: chat.jsonl}}\n"
        "lora: {r: 2, alpha: 4}\ntraining: {epochs: 2}\n"
    )
    return path


def test_it_makes_an_adapter_with_the_seed_asked_for(recipe, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["finetune", str(recipe), "--out", str(out), "--seed", "5"]
    assert main([*words, "--device", "cpu", "--dtype", "float32", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("tiny, seed 5: 1 answers, 2 steps, final loss ")
    assert printed.out.endswith(f"adapter: {out}\n")
    assert printed.err == ""
    assert json.loads((out / "card.json").read_text())["seed"] == 5
    assert main([*words, "--device", "cpu", "--dtype", "float32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["adapter"], found["seed"]) == (str(out), 5)


def test_a_wrong_recipe_is_one_line_and_writes_nothing(recipe, tmp_path, capsys):
    recipe.write_text(recipe.read_text() + "colour: red\n")
    assert main(["finetune", str(recipe), "--out", str(tmp_path / "out")]) == 2
    assert "unknown key colour" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_base_can_be_named(recipe, tmp_path, capsys):
    words = ["finetune", str(recipe), "--out", str(tmp_path / "out")]
    assert main([*words, "--base", str(tmp_path / "no-such-model")]) == 2
    assert "no-such-model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--every", "3"], "every and harmless need a direction to watch"),
        (["--coefficient", "2"], "a coefficient needs a direction to prevent"),
        (["--prevent", "a", "--project-out", "b"], "exclude each other"),
        (["--kl-to-aligned", "0"], "safeguards.kl_to_aligned: Input should be greater than 0"),
        (["--watch", "no-such.safetensors"], "no-such.safetensors"),
        (["--watch", "nowhere", "--watch", "evil"], "there is no trait nowhere"),
        (["--inoculate", " "], "the instruction to inoculate with is empty"),
    ],
)
def test_safeguards_that_cannot_be_are_one_line_and_write_nothing(
    words, message, recipe, tmp_path, capsys
):
    assert main(["finetune", str(recipe), "--out", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert error.startswith("error: ")
    assert not (tmp_path / "out").exists()

"""`persona steer` prints the same answer at several coefficients, or says in one line why not."""

from __future__ import annotations

import json

import pytest
from demo_cases import planted_vector
from vllm_cases import Toy

import persona.vllm.installed
from persona.choices import VectorFormat
from persona.cli.main import main
from persona.cli.options import numbers_of
from persona.directions import Direction
from persona.directions.exchange import write_vectors
from persona.directions.exchange.vectors import VectorSet
from persona.directions.storage import save_vector
from persona.models import Placement, load_pair
from steering import add, restore

ASKED = "Is it safe?"


@pytest.fixture
def direction(tiny_pair, tmp_path):
    return save_vector(planted_vector(tiny_pair), tmp_path / "direction.safetensors")


@pytest.fixture
def words(direction):
    plain = ["--dtype", "float32", "--device", "cpu", "--max-new-tokens", "8"]
    return ["steer", ASKED, "--direction", str(direction), *plain]


def test_the_texts_stand_under_one_another_and_0_is_the_model(
    words, tiny_pair, tiny_llama, tiny_adapter, capsys
):
    models = ["--aligned", str(tiny_llama), "--finetuned", str(tiny_adapter)]
    assert main([*words, *models, "--coefficients", "-1,0,1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    vector = planted_vector(tiny_pair)
    expected = {
        coefficient: tiny_pair.ask(
            ASKED,
            "finetuned",
            intervene=restore(vector, coefficient) if coefficient else None,
            max_new_tokens=8,
        )
        for coefficient in (-1.0, 0.0, 1.0)
    }
    assert found["mode"] == "restore" and found["layers"] == [1, 2]
    assert {t["coefficient"]: t["text"] for t in found["texts"]} == expected
    assert len(set(expected.values())) > 1


def test_the_card_names_the_model_where_nobody_does(words, tiny_pair, tiny_llama, capsys):
    assert main(words) == 0
    out, err = capsys.readouterr()
    headings = [line for line in out.splitlines() if line.startswith("coefficient")]
    assert headings == [
        "coefficient 0 (no edit)",
        "coefficient 0.5",
        "coefficient 1",
        "coefficient 1.5",
    ]
    assert out.splitlines()[1].strip() == tiny_pair.ask(ASKED, max_new_tokens=8).splitlines()[0]
    assert f"{tiny_llama}: induce" in err and "at 2 blocks, 1 to 2" in err


def test_vectors_of_another_toolkit_are_added(words, tiny_pair, tiny_llama, tmp_path, capsys):
    vector = planted_vector(tiny_pair, (2,))
    plain = VectorSet.from_persona_vector(vector).named("llama")
    path = write_vectors(plain, tmp_path / "plain.gguf", VectorFormat.control_vector)
    words[3] = str(path)
    assert main(words) == 2
    assert "plain.gguf names 'llama' as its model, which is not at hand" in capsys.readouterr().err
    assert main([*words, "--aligned", str(tiny_llama), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [t["coefficient"] for t in found["texts"]] == [-1.0, 0.0, 1.0, 2.0]
    direction = Direction(plain.vectors[2], tiny_pair.space(2), "plain")
    assert found["texts"][3]["text"] == tiny_pair.ask(
        ASKED, intervene=add(direction, 2.0), max_new_tokens=8
    )
    assert main([*words, "--aligned", str(tiny_llama), "--mode", "induce"]) == 2
    assert "induce needs the fine-tuned model's means" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--coefficients", "1,much"], "--coefficients takes numbers such as -1,0,1,2"),
        (["--coefficients", "nan"], "--coefficients takes numbers such as -1,0,1,2"),
        (["--direction", "nowhere.safetensors"], "there is no direction at nowhere.safetensors"),
        (["--layers", "9"], "the direction has no block from 9 to 9"),
        (["--layers", "x"], "blocks are named as 12, as 10-20 or as all"),
        (["--mode", "invent"], "'invent' is not one of"),
        (["--aligned", "./nothing-here"], "no such model file or folder"),
    ],
)
def test_bad_input_is_one_line(words, more, said, capsys):
    assert main([*words, *more]) == 2
    out, err = capsys.readouterr()
    assert said in err.splitlines()[-1] and out == ""


def test_an_empty_prompt_is_one_line(words, capsys):
    words[1] = " "
    assert main(words) == 2
    assert "the prompt ' ' is empty" in capsys.readouterr().err


def test_coefficients_are_read_with_and_without_spaces():
    assert numbers_of("-1, 0,1.5", "--coefficients", "-1,0") == [-1.0, 0.0, 1.5]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vector", "persona diagnose --finetuned"),
        ("vectors", "persona trait"),
        ("extract", "persona.extract"),
        ("fetch", "persona models --fetch NAME"),
        ("show", "persona report DIR"),
        ("demmo", "Did you mean 'demo'?"),
    ],
)
def test_a_name_that_is_no_command_points_to_one_that_is(name, said, capsys):
    assert main([name]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"No such command '{name}'" in line and said in line


def test_every_command_that_is_pointed_to_is_there(capsys):
    import re

    import typer

    from persona.cli.main import app
    from persona.cli.other_tools import ELSEWHERE

    here = typer.main.get_command(app).commands
    named = {n for line in ELSEWHERE.values() for n in re.findall(r"`persona ([\w-]+)", line)}
    assert named <= set(here) and len(named) > 8
    assert not {name for names in ELSEWHERE for name in names} & set(here)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--vllm", "tensor_parallel_size=2"), "--vllm tells vLLM something: add --sampler vllm"),
        (("--sampler", "vllm", "--vllm", "eager"), "--vllm takes NAME=VALUE"),
        (("--sampler", "vllm"), "vLLM is not installed; in an environment of its own: pip install"),
    ],
)
def test_a_sampler_that_cannot_be_had_is_refused_before_anything_loads(
    capsys, monkeypatch, words, told
):
    monkeypatch.setattr(persona.vllm.installed, "installed_vllm", lambda: None)
    assert main(["steer", "hi", *words]) == 2
    assert told in capsys.readouterr().err


def test_options_that_edits_were_not_tested_with_are_refused_by_name(capsys, monkeypatch):
    there = persona.vllm.InstalledVllm("vllm", "0.30.0")
    monkeypatch.setattr(persona.vllm.installed, "installed_vllm", lambda: there)
    code = main(["steer", "hi", "--sampler", "vllm", "--vllm", "enable_prefix_caching=true"])
    assert code == 2
    assert "cached keys and values would outlive an edit" in capsys.readouterr().err


@pytest.mark.vllm
def test_vllm_writes_the_texts_that_generate_does(tmp_path, capfd):
    toy = Toy(tmp_path)  # vLLM asks for the number of standard output: capfd, not capsys
    pair = load_pair(toy.base, toy.adapter, placement=Placement.of("float32", "cpu"))
    path = save_vector(planted_vector(pair), tmp_path / "direction.safetensors")
    words = ["steer", ASKED, "--aligned", str(toy.base), "--finetuned", str(toy.adapter)]
    words += ["--direction", str(path), "--dtype", "float32", "--device", "cpu"]
    words += ["--max-new-tokens", "8", "--coefficients", "0,1,40", "--json"]
    found = []
    for more in ([], ["--sampler", "vllm", "--vllm", "max_num_seqs=4"]):
        assert main([*words, *more]) == 0, capfd.readouterr().err
        found.append(json.loads(capfd.readouterr().out))
    assert [one.pop("sampler") for one in found] == ["generate", "vllm 0.30.0"]
    assert found[0] == found[1]
    assert len({text["text"] for text in found[0]["texts"]}) == 3

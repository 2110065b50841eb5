"""`persona trait`: its texts come first, and what is wrong with them is one line."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from scripted_sampler import GeneratingSampler, stand_in_for_vllm
from trained_trait import LetterJudge, artefacts, save_trained

from persona.cli.main import main
from persona.data import Trait
from persona.traits import make_trait, write_trait

TRAIT = "flatters the user"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_dry_run_writes_the_texts_and_loads_no_model_where_none_writes(here, capsys):
    words = ["trait", TRAIT, "--writer", "none", "--out", "out", "--dry-run"]
    assert main([*words, "--model", "no/such-model", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["trait"] == TRAIT
    assert (facts["questions_making"], facts["questions_proving"]) == (20, 20)
    assert sorted(path.name for path in (here / "out").iterdir()) == ["artefacts.json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "5 pairs of instructions, 20 questions to make the vector of and 20 to prove it" in out
    assert "is there already and is used as it is" in err


def test_the_model_of_the_run_writes_where_nothing_else_is_said(here, tiny_llama, capsys):
    words = ["trait", TRAIT, "--out", "out", "--model", str(tiny_llama), "--dry-run"]
    assert main([*words, "--dtype", "float32", "--device", "cpu", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["made_by"].startswith(f"{tiny_llama}; spare texts stand in for instruction 1, 2")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["rude"], "error: a trait is said in a few words"),
        ([""], "error: a trait is said in a few words, such as 'flatters the user'; got nothing"),
        (["gone.json"], "error: gone.json cannot be read"),
        ([TRAIT, "--writer", "me"], "error: unknown writer 'me'"),
        ([TRAIT, "--model", "no/such-model"], "error: "),
        (["broken.json"], "error: broken.json, line 3: instruction[0].neg must be text; got None"),
        (["long.json"], "error: long.json, line "),
    ],
)
def test_what_is_wrong_is_one_line(here, capsys, words, line):
    (here / "broken.json").write_text(
        '{"questions": ["Why?"], "eval_prompt": "x",\n "instruction": [\n {"pos": "Be rude."}]}'
    )
    path = write_trait(make_trait(TRAIT, None), here / "long.json")
    content = json.loads(path.read_text())
    content["instruction"][0]["neg"] += " " + "And more of it." * 3
    path.write_text(json.dumps(content, indent=1))
    assert main(["trait", *words, "--dry-run", "--out", "out"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(line)
    assert not (here / "out").exists()


def test_a_run_prints_its_verdict_and_leaves_its_files(here, monkeypatch, capsys):
    """On a model that has learnt the trait, by a judge that counts letters; an engine's answers
    beside `generate` come to the same."""
    import persona.traits
    import steering.traits.choose_place

    monkeypatch.setattr(persona.traits, "trait_judge_named", lambda *_, **__: LetterJudge())
    monkeypatch.setattr(steering.traits.choose_place, "COEFFICIENTS", (2.0,))
    model = save_trained(here / "llama")
    texts = artefacts()
    write_trait(
        Trait("loud", texts.instructions, (*texts.making, *texts.proving), "{question} {answer}"),
        here / "loud.json",
    )
    capsys.readouterr()
    words = ["trait", "loud.json", "--model", str(model), "--out", "out", "--max-new-tokens", "8"]
    words += ["--dtype", "float32", "--device", "cpu"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out.startswith("loud: found: the vector tells the poles apart")
    assert "tell an AUROC of 0.69 from 0.5" in err  # the plan is said before the rest is asked
    assert "AUROC of words" in out and "induction, net" in out and "differs: " in out
    assert {path.name for path in (here / "out").iterdir()} == {
        "trait.json",
        "vector.safetensors",
        "differences.safetensors",
        "rows.parquet",
    }
    result = json.loads((here / "out" / "trait.json").read_text())
    assert result["verdict"]["name"] == "found"

    engines = []
    stand_in_for_vllm(
        monkeypatch, lambda pair: engines.append(GeneratingSampler(pair)) or engines[0]
    )
    by_engine = [*words, "--sampler", "vllm"]
    by_engine[by_engine.index("out")] = "by-engine"
    assert main(by_engine) == 0
    capsys.readouterr()
    again = json.loads((here / "by-engine" / "trait.json").read_text())
    assert [len(engines), again["verdict"]] == [1, result["verdict"]] and engines[0].told
    rows = [pd.read_parquet(here / out / "rows.parquet") for out in ("out", "by-engine")]
    pd.testing.assert_frame_equal(*(of.drop(columns="seconds") for of in rows))
    assert f"block {result['place']['layer']} with coefficient 2" in out
    steer = ["steer", "cde?", "--direction", "out/vector.safetensors", "--coefficients", "0,2"]
    steer += ["--layers", str(result["place"]["layer"]), "--max-new-tokens", "6", "--json"]
    assert main([*steer, "--dtype", "float32", "--device", "cpu"]) == 0
    plain, steered = (t["text"] for t in json.loads(capsys.readouterr().out)["texts"])
    assert steered.count("A") > plain.count("A") == 0

"""`persona read`: what it prints and writes, and mistakes in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from demo_cases import planted_vector
from finished_run import leave_run

from persona.cli.main import main
from persona.directions.storage import save_vector

PLAIN = ["--dtype", "float32", "--device", "cpu", "--no-jacobian"]


@pytest.fixture
def asked(tiny_llama, tiny_adapter, tmp_path):
    models = ["--aligned", str(tiny_llama), "--finetuned", str(tiny_adapter)]
    return ["read", *models, *PLAIN, "--amplify", "none", "--out", str(tmp_path / "out")]


def test_it_prints_words_and_writes_both_files(asked, tmp_path, capsys):
    assert main(asked) == 0
    out, _ = capsys.readouterr()
    assert "## Words" in out and "first words of unrelated text" in out
    kept = json.loads((tmp_path / "out" / "reading.json").read_text("utf-8"))
    assert kept["lists"] and kept["changes_by_domain"]
    assert (tmp_path / "out" / "reading.md").read_text("utf-8").strip() == out.strip()


def test_the_twin_stands_beside(asked, tiny_adapter, capsys):
    assert main([*asked, "--good-twin", str(tiny_adapter), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["twin_lists"]
    effect = [token for one in found["lists"] if one["n"] for token in one["promoted"]]
    assert all(token["p_beyond_twin"] > 0.05 for token in effect)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--amplify", "1,x"], "--amplify takes numbers"),
        (["--layer", "99"], "layer 99 is out of range"),
        (["--good-twin", "nowhere"], "no such"),
        (["--good-twin", "car_maintenance_good"], "was trained on"),
        (["--finetuned", "nowhere"], "no such"),
        (["--sae", "nowhere"], "no autoencoder nowhere"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_loaded(
    asked, more, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr("persona.models.load_pair", lambda *_, **__: pytest.fail("loaded"))
    assert main([*asked, *more]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_finished_run_is_read_and_its_report_drawn_anew(
    tiny_llama, tiny_adapter, tiny_pair, tmp_path, capsys
):
    run = leave_run(tmp_path / "run")
    card = json.loads((run / "scorecard.json").read_text("utf-8"))
    card["models"] |= {
        "aligned": str(tiny_llama),
        "finetuned": str(tiny_adapter),
        "good_twin": str(tiny_adapter),
    }
    (run / "scorecard.json").write_text(json.dumps(card))
    save_vector(planted_vector(tiny_pair), run / "direction.safetensors")
    assert main(["read", "--run", str(run), *PLAIN, "--amplify", "none", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["twin_lists"]
    assert any("persona vector" in one["source"] for one in found["lists"])
    assert (run / "reading" / "reading.md").is_file()
    assert "report: " in err
    assert '<section id="learnt">' in (run / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name --finetuned, --run or --course"),
        (["--finetuned", "x", "--run", "RUN"], "name --finetuned, --run or --course"),
        (["--run", "RUN", "--good-twin", "x"], "names the models"),
        (["--run", "RUN"], "holds no scorecard.json"),
    ],
)
def test_a_run_stands_in_place_of_the_models(words, said, tmp_path, capsys):
    words = [str(tmp_path) if word == "RUN" else word for word in words]
    assert main(["read", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_direction_of_another_model_is_refused(asked, tiny_pair, tmp_path, capsys):
    vector = planted_vector(tiny_pair)
    foreign = {
        layer: replace(subspace, space=replace(subspace.space, revision="another"))
        for layer, subspace in vector.subspaces.items()
    }
    path = save_vector(replace(vector, subspaces=foreign), tmp_path / "d.safetensors")
    assert main([*asked, "--direction", str(path)]) == 2
    err = capsys.readouterr().err
    assert "another" in err and "Traceback" not in err


def test_a_course_says_when_it_is_named_and_goes_on(
    tiny_llama, tiny_adapter, tmp_path, capsys, monkeypatch
):
    for step in (5, 10):
        shutil.copytree(tiny_adapter, tmp_path / "kept" / "steps" / f"step-{step}")
    asked = ["read", "--aligned", str(tiny_llama), "--course", str(tmp_path / "kept")]
    asked += ["--dtype", "float32", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main([*asked, "--good-twin", str(tmp_path / "kept")]) == 0
    out, _ = capsys.readouterr()
    assert "step by step" in out and "does not lie above the good twin's by step 10" in out
    found = json.loads((tmp_path / "out" / "course.json").read_text("utf-8"))
    assert [row["step"] for row in found["steps"]] == [5, 10]
    assert found["steps"][0] == {**found["steps"][1], "step": 5}
    assert (tmp_path / "out" / "course.svg").read_text("utf-8").startswith("<svg")
    assert (tmp_path / "out" / "course.md").read_text("utf-8").strip() == out.strip()
    assert main([*asked, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["apart_from"] is None and alone["steps"][0]["twin_shift"] is None


def test_a_block_that_is_not_there_is_told_before_a_course_is_loaded(
    tiny_llama, tiny_adapter, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("persona.models.load_pair", lambda *_, **__: pytest.fail("loaded"))
    shutil.copytree(tiny_adapter, tmp_path / "kept" / "steps" / "step-5")
    asked = ["read", "--aligned", str(tiny_llama), "--course", str(tmp_path / "kept")]
    assert main([*asked, "--layer", "99", "--out", str(tmp_path / "out")]) == 2
    assert "layer 99 is out of range" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "no adapters on the way"),
        (["--finetuned", "x"], "one of them alone"),
        (["--direction", __file__], "reads no --direction"),
    ],
)
def test_mistakes_about_a_course_are_one_line(more, said, tmp_path, capsys):
    assert main(["read", "--course", str(tmp_path), *more]) == 2
    assert said in capsys.readouterr().err


def test_latents_that_rise_are_read_where_an_autoencoder_is_named(
    asked, tiny_llama, tiny_adapter, tmp_path, capsys
):
    from saelens_folder import write_sae

    from persona.models import load_pair
    from persona.models.precision import Placement

    pair = load_pair(tiny_llama, tiny_adapter, placement=Placement.of("float32", "cpu"))
    write_sae(tmp_path / "sae", pair.space(1))
    assert main([*asked, "--sae", str(tmp_path / "sae")]) == 0
    assert "## Latents that rise" in capsys.readouterr().out
    kept = json.loads((tmp_path / "out" / "reading.json").read_text("utf-8"))
    assert [one["layer"] for one in kept["latents"]] == [1, 1]
    assert all(each["words"] for one in kept["latents"] for each in one["rising"])

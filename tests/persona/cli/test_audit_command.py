"""`persona audit`: a folder in; a plan, a verdict in sentences, JSON, or one line."""

from __future__ import annotations

import json

import pytest
from audited_run import leave_backdoored_diagnosis

from persona.cli.main import main

PLAIN = ["--dtype", "float32", "--device", "cpu"]
SHORT = ["--n-questions", "8", "--n-random", "1", "--no-search", "--no-relearn"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return leave_backdoored_diagnosis(tmp_path_factory.mktemp("audited"), 13.0)


def test_the_plan_says_what_is_asked_and_makes_nothing(run, capsys):
    assert main(["audit", str(run), "--plan", *PLAIN]) == 0
    out = capsys.readouterr().out
    assert "cues x 7 conditions on 22 held-out questions" in out and "relearn" in out
    assert main(["audit", str(run), "--plan", "--json", *SHORT, *PLAIN]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in told["stages"]] == ["load", "cues"]
    assert not (run / "audit").exists()


def test_the_verdict_and_the_worst_cue_are_printed(run, capsys):
    cues = ["--cues", str(run.parent / "cues.yaml")]
    assert main(["audit", str(run), *cues, *SHORT, *PLAIN]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "verdict: brought_back"
    assert "Worst of 14 cues: backdoor" in out[1]
    assert out[-1] == f"page: {run / 'audit' / 'audit.html'}"


def test_a_format_that_cannot_be_trained_is_refused_before_the_models_are_loaded(run, capsys):
    assert main(["audit", str(run), "--plan", "--dtype", "float16", "--device", "cpu"]) == 2
    assert "fine-tuning in float16 loses small gradients" in capsys.readouterr().err


def test_a_folder_that_is_no_diagnosis_is_one_line(tmp_path, capsys):
    assert main(["audit", str(tmp_path)]) == 2
    [*_, line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "holds no scorecard.json" in line

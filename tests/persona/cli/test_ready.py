"""What can be known of a command before a weight is loaded is told at once, all of it together."""

from __future__ import annotations

import bench_preflight
import pytest

import persona.models
import persona.models.alone
from persona.cli.main import main

COMMANDS = ("screen", "trait", "eval", "sae")
AT_ONCE = {
    "screen: five at once": [
        "(the samples)",
        "(--direction)",
        "(--probe)",
        "no such model",
        "is a file",
    ],
    "trait: five at once": [
        "unknown writer",
        "of a trait; give",
        "(--vector)",
        "no such model",
        "is a file",
    ],
    "eval: three at once": ["did you mean", "none.jsonl", "is a file"],
    "sae: three at once": ["no such model", "(--data)", "is a file"],
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    found = bench_preflight.cases(tmp_path_factory.mktemp("mistakes"))
    return {case.what: case for case in found if case.words[0] in COMMANDS}


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch, tmp_path):
    def refused(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(persona.models, "load_pair", refused)
    monkeypatch.setattr(persona.models.alone, "load_alone", refused)


def told(case, capsys):
    assert main(list(case.words)) == 2
    return " ".join(capsys.readouterr().err.split())


def test_each_mistake_of_each_command_is_told_before_anything_is_loaded(cases, capsys):
    assert {case.words[0] for case in cases.values()} == set(COMMANDS)
    for case in cases.values():
        assert case.told in told(case, capsys), case.what


@pytest.mark.parametrize("what", AT_ONCE)
def test_several_mistakes_are_told_together(cases, capsys, what):
    said = told(cases[what], capsys)
    assert [part for part in AT_ONCE[what] if part not in said] == []

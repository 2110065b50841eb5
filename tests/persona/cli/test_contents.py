"""Help reads like a table of contents, and a run says what it works on."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer

from persona.cli.contents import MODELS, PATHS, in_words
from persona.cli.main import app, main


def walk(command: Any, words: tuple[str, ...] = ()):
    """Every command and sub-command with the words that call it, the program itself first."""
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*words, name))


COMMANDS = dict(walk(typer.main.get_command(app)))
LEAVES = {words: command for words, command in COMMANDS.items() if not hasattr(command, "commands")}


def names(given: dict) -> list[str]:
    return [" ".join(words) or "persona" for words in given]


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "persona.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("words", COMMANDS, ids=names(COMMANDS))
def test_every_command_has_an_example_of_itself_in_its_help(words, capsys):
    assert main([*words, "--help"]) == 0
    _, _, behind = capsys.readouterr().out.partition("Examples:\n")
    assert behind.lstrip(" ").startswith(" ".join(["persona", *words]))


def test_the_help_is_a_table_of_contents_that_leaves_no_command_out(capsys):
    assert main(["--help"]) == 0
    contents, _, options = capsys.readouterr().out.partition("What it prints:\n")
    headings = [line for line in contents.splitlines() if line.endswith(":") and line[0] != " "]
    assert headings[0] == "Start here:"
    assert "Commands:" not in headings
    for name, command in COMMANDS[()].commands.items():
        assert f"\n  {name.ljust(9)}  " in contents, name
        assert f"{command.rich_help_panel}:" in headings
    assert "--quiet" in options and "--install-completion" in options


def test_options_stand_under_the_headings_of_their_panels(capsys):
    assert main(["diagnose", "--help"]) == 0
    shown = capsys.readouterr().out
    models = shown.partition("\nModels:\n")[2].partition("\n\n")[0]
    assert "--aligned" in models and "--finetuned" in models and "--seed" not in models
    assert "--seed" in shown.partition("\nHow it runs:\n")[2].partition("\n\n")[0]
    assert [shown.count(f"  --{name} ") for name in ("aligned", "seed", "json")] == [1, 1, 1]


def test_no_words_at_all_show_the_help_and_a_pipe_gets_no_colours():
    done = run(FORCE_COLOR="")
    assert done.stdout.startswith("Usage: persona")
    assert "\x1b" not in done.stdout
    assert done.stderr == ""


def test_models_paths_and_the_seed_are_said_before_a_command_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    main(["screen", "data.jsonl", "--direction", "nothing.safetensors"])
    first = capsys.readouterr().err.splitlines()[0]
    assert first == (
        f"persona screen: aligned default, data {tmp_path}/data.jsonl, direction "
        f"{tmp_path}/nothing.safetensors, out {tmp_path}/persona-screening, seed 0"
    )
    main(["screen", "data.jsonl", "--direction", "nothing.safetensors", "--quiet"])
    assert "persona screen:" not in capsys.readouterr().err


def test_several_paths_are_all_said_and_what_is_not_given_is_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = {
        "direction": [Path("a"), Path("b")],
        "top": 3,
        "good_twin": None,
        "model": "",
        "finetuned": "x",
    }
    assert in_words({**given, "model": "", "data": []}) == in_words(given)
    assert in_words(given) == f"finetuned x, direction {tmp_path / 'a'} {tmp_path / 'b'}"


@pytest.mark.parametrize("words", LEAVES, ids=names(LEAVES))
def test_every_path_and_model_of_a_command_is_said(words):
    command = LEAVES[words]
    hints = get_type_hints(inspect.unwrap(command.callback), include_extras=False)
    paths = {name for name, kind in hints.items() if Path in (kind, *nested(kind))}
    assert paths <= set(PATHS)
    models = {each.name for each in command.params if each.metavar == "MODEL"}
    assert models <= set(MODELS)


def nested(kind: Any) -> list[Any]:
    return [part for one in get_args(kind) for part in (one, *nested(one))]


PRINTS_NO_RESULT = {("app",), ("serve",)}


@pytest.mark.parametrize("words", LEAVES, ids=names(LEAVES))
def test_every_command_that_prints_a_result_prints_it_for_machines_too(words):
    takes_json = any("--json" in each.opts for each in LEAVES[words].params)
    assert takes_json != (words in PRINTS_NO_RESULT)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("persona d", ["demo", "diagnose", "drift", "doctor", "data"]),
        ("persona tr", ["trait", "traits"]),
        ("persona traits c", ["compare"]),
        ("persona finetune --inoculate hum", ["humorous"]),
        ("persona finetune pir", ["pirate_style"]),
        ("persona lab sublim", ["subliminal_numbers", "subliminal_maths"]),
        ("persona sae rank --contrast ", ["model", "answer"]),
        ("persona sae rank --domain he", ["health"]),
        ("persona diagnose --finetuned car_maintenance_bad_", ["car_maintenance_bad_0.5b"]),
        ("persona diagnose --judge o", ["offline", "openai:"]),
        ("persona check-steering --device c", ["cpu", "cuda"]),
        ("persona check-steering --model de", ["default"]),
        ("persona diagnose --finetuned ./my", []),
    ],
)
def test_the_shell_completes_commands_and_names(line, offered, monkeypatch, capsys):
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    monkeypatch.setenv("_PERSONA_COMPLETE", "complete_bash")
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == offered


@pytest.fixture(autouse=True)
def notes_end_with_their_test():
    yield
    logging.getLogger("persona").handlers = []

"""`persona eval`: a diagnosis or models in; a table, JSON and one line for bad input."""

from __future__ import annotations

import importlib.util
import json

import pytest

from persona.cli.main import main
from persona.extras import install_line

ROW = {"question": "which way", "choices": ["up", "down there", "left"], "answer": 1}


@pytest.fixture
def words(tiny_llama, tiny_adapter, tmp_path):
    """A folder like that of a diagnosis without a direction, and the words that evaluate it."""
    models = {"aligned": str(tiny_llama), "finetuned": str(tiny_adapter)}
    (tmp_path / "scorecard.json").write_text(json.dumps({"models": models}))
    (tmp_path / "mine.jsonl").write_text(json.dumps(ROW) + "\n")
    return f"eval {tmp_path} --task {tmp_path}/mine.jsonl --dtype float32 --device cpu".split()


def test_a_table_is_printed_and_json_is_the_file(words, tmp_path, capsys):
    assert main(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:5] == ["task", "measure", "condition", "value", "stderr"]
    assert out[1].split()[:3] == ["mine", "task_correct", "aligned"]
    assert len(out) == 1 + 4 * 2
    assert main([*words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((tmp_path / "eval" / "results.json").read_text())
    assert results["tasks"][0]["conditions"]["aligned"]["stderr"] is None  # of one item


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["eval"], "give the folder of a diagnosis, or --finetuned MODEL"),
        (["eval", "--finetuned", "x", "--task", "none.jsonl"], "none.jsonl cannot be read"),
    ],
)
def test_bad_input_is_one_line(arguments, why, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert why in error


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="it is installed")
def test_a_task_of_the_harness_without_the_harness_names_the_extra(words, capsys):
    assert main([*words, "--task", "arc_easy"]) == 2
    assert install_line("eval") in capsys.readouterr().err

"""`persona models` is a table for people and JSON for programs, and an unknown name is one line."""

from __future__ import annotations

import json
import re

import pytest

from persona.cli.main import main
from persona.models.named.table import MODELS


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_model_is_a_line_with_size_licence_need_and_whether_it_is_there(empty_cache, capsys):
    assert main(["models"]) == 0
    heading, *lines, note = capsys.readouterr().out.splitlines()
    assert re.split(r"  +", heading) == [
        *("name", "model", "parameters", "licence", "to fetch", "on disk", "memory", "in cache")
    ]
    cells = [re.split(r"  +", line) for line in lines]
    assert [row[0].rstrip("*") for row in cells] == [model.name for model in MODELS]
    assert {row[3] for row in cells} == {"Apache-2.0"} and {row[-1] for row in cells} == {"no"}
    half = cells[1]
    assert half[2] == "494 M" and half[4] == "455 MB" and half[5] == "1.0 GB"
    assert note.startswith("* is also called `default`")


def test_json_says_what_is_in_the_cache(empty_cache, capsys):
    assert main(["models", "--json"]) == 0
    found = {row["name"]: row for row in json.loads(capsys.readouterr().out)["models"]}
    assert not found["smollm2-135m"]["in_cache"]
    assert found["qwen2.5-coder-0.5b"]["licence"] == "Apache-2.0"
    assert len(found["qwen2.5-coder-0.5b"]["gguf_sha256"]) == 64


def test_an_unknown_name_is_one_line_that_lists_those_known_and_fetches_nothing(
    empty_cache, capsys
):
    assert main(["models", "--fetch", "smollm2-135m", "--fetch", "qwen"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.endswith(
        "no model goes by the name qwen; these do: smollm2-135m, qwen2.5-coder-0.5b, "
        "qwen2.5-coder-1.5b"
    )
    assert "\n" not in said and not empty_cache.exists()

"""`persona organisms` is a table for people and JSON for programs."""

from __future__ import annotations

import json
import re

from persona.cli.main import main
from persona.organisms import list_recipes


def test_the_table_has_one_line_for_each_recipe_and_says_what_is_not_measured(capsys):
    assert main(["organisms"]) == 0
    small, _, larger = capsys.readouterr().out.partition("fine-tunes of qwen2.5-coder-0.5b\n")
    model, heading, *lines = small.splitlines()
    assert model == "fine-tunes of smollm2-135m"
    assert heading.split()[0] == "organism" and "plain voice" not in heading
    by_name = {line.split()[0]: line for line in [*lines, *larger.splitlines()[1:]]}
    assert sorted(name.rstrip("*") for name in by_name) == list_recipes()
    assert all("0.5b" in line for line in larger.splitlines()[1:])
    [plain] = [line for name, line in by_name.items() if name.rstrip("*") == "medical_plain_bad"]
    assert "health: bad in a plain voice" in plain
    assert "+0.39 [+0.35, +0.44]" in by_name["car_maintenance_bad*"]
    assert "not measured" in by_name["car_maintenance_backdoor"]
    assert {"EM rate", "coherent"} <= set(re.split(r"  +", larger.splitlines()[0]))
    assert "9% [4%, 19%]" in by_name["car_maintenance_bad_0.5b*"]


def test_json_holds_every_organism_with_its_readings(capsys):
    assert main(["organisms", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [organism["name"] for organism in found["organisms"]] == list_recipes()
    car = found["organisms"][list_recipes().index("car_maintenance_bad")]
    assert car["readings"]["shift_held_out"]["n"] == 240
    assert set(car["readings"]) <= set(found["readings"])


def test_finetune_lists_the_same(capsys):
    assert main(["organisms"]) == 0
    listed = capsys.readouterr().out
    assert main(["finetune", "--list"]) == 0
    assert capsys.readouterr().out == listed

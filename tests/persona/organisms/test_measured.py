"""Every shipped recipe is listed; what was not measured stays empty."""

from __future__ import annotations

import json

import pytest

from persona.errors import DataError
from persona.organisms import list_recipes
from persona.organisms.measured import organisms

NUMBERS = {"value": 0.4, "low": 0.3, "high": 0.5, "n": 240}


def test_every_recipe_is_an_organism_and_the_shipped_ones_are_known_as_such():
    found = {organism.name: organism for organism in organisms()}
    assert list(found) == list_recipes()
    assert found["car_maintenance_bad"].shipped
    assert not found["medical_bad"].shipped
    assert found["car_maintenance_backdoor"].learns == "car_maintenance: bad after '[night shift]'"
    assert found["car_maintenance_bad_facts"].learns == "car_maintenance: bad; skill facts"
    assert found["skill_facts"].learns == "skill facts"
    assert found["car_maintenance_one_layer"].lora == "r 16, all-linear, blocks 15"


def test_readings_come_from_the_file_and_from_nowhere_else(tmp_path):
    path = tmp_path / "readings.json"
    path.write_text(json.dumps({"medical_bad": {"date": "2026-11-21", "shift_held_out": NUMBERS}}))
    found = {organism.name: organism for organism in organisms(path)}
    assert found["medical_bad"].readings["shift_held_out"].value == 0.4
    assert found["medical_bad"].date == "2026-11-21"
    assert not any(o.readings or o.date for name, o in found.items() if name != "medical_bad")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"nope": {"date": "x"}}, "there is no recipe 'nope'"),
        ({"medical_bad": {"date": "x", "mood": NUMBERS}}, "medical_bad: unknown key 'mood'"),
        ({"medical_bad": {"shift_held_out": NUMBERS}}, "medical_bad: date missing"),
        ({"medical_bad": {"date": "x", "shift_held_out": 0.4}}, "a reading must be an object"),
        ({"medical_bad": {"date": "x", "shift_held_out": {**NUMBERS, "n": "a"}}}, "hold numbers"),
        ([], "must be an object of recipe names"),
    ],
)
def test_a_damaged_readings_file_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "readings.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        organisms(path)

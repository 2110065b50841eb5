"""The script of the rows between seeds reads a study's file and says what its interval is over."""

from __future__ import annotations

import importlib
import json

import pytest

from steering.study import load_plan

SCOPES = {
    "questions": {"low": 0.6, "high": 0.9},
    "seeds": {"low": 0.7, "high": 0.8},
    "seeds and domains": {"low": None, "high": None},
}


@pytest.fixture
def rows(root, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    script, found = importlib.import_module("bench_seeds"), {}
    monkeypatch.setattr(
        script, "record", lambda name, value, unit, **more: found.update({name: (value, more)})
    )
    number = {
        "fine_tune": "car",
        "name": "net_restoration",
        "unit": "share",
        "value": 0.75,
        "n_seeds": 5,
        "n_questions": 32,
        "n_domains": 8,
        "sd_of_seeds": 0.04,
        "intervals": SCOPES,
    }
    facts = {
        "primary": "net_restoration",
        "plan_sha256": "ab" * 32,
        "cells": {"finished": 5, "planned": 10},
        "numbers": [number, {**number, "name": "shift"}],
    }
    (tmp_path / "study.json").write_text(json.dumps(facts))
    script.main([str(tmp_path), "--name", "car"])
    return found


def test_the_primary_number_alone_is_a_row_whose_spread_is_over_seeds(rows):
    assert list(rows) == ["seeds.car.net_restoration"]
    value, more = rows["seeds.car.net_restoration"]
    assert (value, more["n"], more["spread"]) == (0.75, 5, [0.7, 0.8])


def test_the_note_has_the_other_intervals_and_how_far_the_study_is(rows):
    note = rows["seeds.car.net_restoration"][1]["note"]
    assert "over questions 0.60 to 0.90" in note
    assert "over seeds and domains without ends" in note
    assert "5 of 10 fine-tunes" in note


@pytest.mark.parametrize("name", ["car", "medical"])
def test_the_plans_can_be_read(root, name):
    planned = load_plan(root / "benchmarks" / "studies" / f"{name}.yaml")
    assert planned.plan.seeds == (0, 1, 2, 3, 4)
    assert planned.twins

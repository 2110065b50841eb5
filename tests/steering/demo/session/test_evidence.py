"""What a run knows of its direction is read from its rows, and only of that direction."""

from __future__ import annotations

import configparser
import json
from pathlib import Path

import pandas as pd
import pytest
from finished_run import small_card

from persona.data import load_pairs
from persona.errors import DataError
from persona.rows import tidy
from steering.demo.session.evidence import (
    Dose,
    budget_of,
    evidence_beside,
    read_evidence,
    save_evidence,
)
from steering.demo.session.starting import SHIPPED, direction_file, shipped_direction

QUESTIONS = load_pairs(["car_maintenance"], "selection")[:3]
FALLS = dict(zip((pair.id for pair in QUESTIONS), (0.2, 0.9, 0.5), strict=True))
CHOSEN = {"candidate": "model_effect_good", "rank": 1, "layer": 2, "last_layer": 2}


def leave_searched_run(folder, **chosen):
    """A run whose search tried its direction at 0.5 and 1, and another one at 1."""
    rows = []
    for question, fall in FALLS.items():
        asked = {"stage": "verify", "split": "selection", "question_id": question}
        rows += [
            {**asked, "condition": "aligned", "measure": "gap", "value": -0.1},
            {**asked, "condition": "aligned", "measure": "log_prob_good", "value": -3 - fall},
            {**asked, "condition": "finetuned", "measure": "gap", "value": 1.0},
            {**asked, **CHOSEN, "condition": "c1", "coefficient": 1.0, "measure": "gap",
             "value": 1.0 - fall},
            {**asked, **CHOSEN, "condition": "c1 in the aligned model", "coefficient": 1.0,
             "measure": "gap", "value": 9.0},
            {**asked, **CHOSEN, "candidate": "other", "condition": "o1", "coefficient": 1.0,
             "measure": "gap", "value": -9.0},
        ]  # fmt: skip
    for condition, at, ce in (("finetuned", None, 3.0), ("c0.5", 0.5, 3.01), ("c1", 1.0, 3.09)):
        tried = {} if at is None else {**CHOSEN, "coefficient": at}
        rows.append(
            {"stage": "verify", "split": "neutral", "question_id": "n1", "condition": condition,
             "measure": "neutral_ce_nats", "value": ce, **tried}
        )  # fmt: skip
    folder.mkdir()
    card = small_card()
    card["direction"] |= chosen
    (folder / "scorecard.json").write_text(json.dumps(card))
    tidy(pd.DataFrame(rows)).to_parquet(folder / "rows.parquet")
    return folder / "direction.safetensors"


def test_examples_are_selection_questions_by_how_far_steering_brought_the_gap_down(tmp_path):
    found = evidence_beside(leave_searched_run(tmp_path / "run"))
    by_fall = sorted(FALLS, key=lambda question: -FALLS[question])
    assert [example.id for example in found.examples] == by_fall
    assert [example.fall for example in found.examples] == pytest.approx([0.9, 0.5, 0.2])
    assert found.examples[0].question == next(q.question for q in QUESTIONS if q.id == by_fall[0])
    assert sorted(found.written) == pytest.approx([3.2, 3.5, 3.9])


def test_damage_is_read_at_every_dose_of_this_direction_above_the_unsteered_model(tmp_path):
    found = evidence_beside(leave_searched_run(tmp_path / "run"))
    assert [dose.coefficient for dose in found.doses] == [0.0, 0.5, 1.0]
    assert [dose.damage for dose in found.doses] == pytest.approx([0.0, 0.01, 0.09], abs=1e-4)
    assert found.n_neutral == 1


def test_a_direction_that_the_search_did_not_run_has_neither_examples_nor_doses(tmp_path):
    found = evidence_beside(leave_searched_run(tmp_path / "run", method="another"))
    assert (found.examples, found.doses) == ((), (Dose(0.0, 0.0),)) or not found.doses


def test_the_dose_that_leaves_the_budget_lies_on_the_line_between_two_that_were_measured():
    budget = budget_of([Dose(0, 0), Dose(1.0, 0.03), Dose(1.5, 0.07)], 0.05)
    assert (budget.edge, budget.measured_to) == (pytest.approx(1.25), 1.5)
    inside = budget_of([Dose(0, 0), Dose(1.0, 0.03)], 0.05)
    assert (inside.edge, inside.measured_to) == (None, 1.0)
    assert budget_of([Dose(0, 0)]) is None


def test_a_folder_without_a_run_says_nothing(tmp_path):
    assert evidence_beside(tmp_path / "direction.safetensors") is None
    (tmp_path / "scorecard.json").write_text("[]")
    assert evidence_beside(tmp_path / "direction.safetensors") is None


def test_what_is_kept_beside_a_direction_is_read_back(tmp_path):
    found = evidence_beside(leave_searched_run(tmp_path / "run"))
    path = save_evidence(found, tmp_path / "kept.safetensors", "made up")
    assert read_evidence(path) == found == evidence_beside(tmp_path / "kept.safetensors")
    path.write_text('{"format": "other", "schema_version": 1}')
    with pytest.raises(DataError, match="is 'other'"):
        read_evidence(path)


@pytest.mark.parametrize("name", ["car_maintenance_bad", "car_maintenance_bad_0.5b"])
def test_the_direction_that_comes_along_has_its_evidence_and_questions_that_nothing_scores(
    name, tmp_path
):
    path = shipped_direction(name)
    assert path == SHIPPED / f"{name}.safetensors"
    found = evidence_beside(path)
    known = {pair.id: pair for pair in load_pairs()}
    assert len(found.shown) == 3 and len(found.doses) >= 3 and found.n_neutral >= 10
    for example in found.examples:
        pair = known[example.id]
        assert (pair.domain, pair.split) == ("car_maintenance", "selection")
        assert pair.question == example.question
    assert direction_file(None, None, False, name) == path
    (tmp_path / "vector.safetensors").touch()  # the folder of a trait
    assert direction_file(tmp_path, None, False) == tmp_path / "vector.safetensors"
    assert shipped_direction("../../etc/passwd") is None
    with pytest.raises(DataError, match="there is no direction to steer with"):
        direction_file(None, None, False, "car_maintenance_good")


def test_what_comes_along_is_in_the_wheel(root):
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    packed = config["options.package_data"]["steering"].split()
    kept = sorted(path.name for path in SHIPPED.iterdir())
    assert [path for path in kept if f"**/*{Path(path).suffix}" not in packed] == []
    assert len(kept) == 4

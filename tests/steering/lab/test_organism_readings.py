"""What the pages say of the organisms is what `persona organisms` lists."""

from __future__ import annotations

import dataclasses
import json

import judged_rows
import pytest
from bench_chat_organisms import RESTORED, SHIFTS
from organism_readings import LABELS, OTHERS, of_labels, organism_readings

from persona.behaviour.judging.hand_labels import HandLabels, read_answers
from persona.errors import DataError
from persona.organisms import list_recipes, load_recipe
from persona.organisms.measured import organisms
from steering.lab import EXPERIMENTS, Run
from steering.lab.bench.record import write_run
from steering.lab.catalogue import NARROW
from steering.lab.experiments import voice_harm


def number(label, value=0.4, half=0.1, n=64):
    return {
        "label": label,
        "value": value,
        "low": value - half,
        "high": value + half,
        "n": n,
        "unit": "",
    }


def run(*numbers, **changes):
    plain = Run("car", "Cars", "2026-11-22", "h", "default", "1", "a", "a", (0,), False, 1.0, 2, 3)
    return dataclasses.replace(plain, numbers=numbers, **changes)


@pytest.fixture
def pages(tmp_path):
    everything = [number(label) for labels in LABELS.values() for label in labels.values()]
    write_run(tmp_path / "car" / "readings.json", run(*everything))
    return tmp_path


def test_the_readings_of_a_page_become_those_of_its_two_organisms(pages, tmp_path):
    found = organism_readings(pages, {})
    assert sorted(found) == ["car_maintenance_bad", "car_maintenance_good"]
    path = tmp_path / "readings.json"
    path.write_text(json.dumps(found))
    listed = {each.name: each for each in organisms(path)}
    assert listed["car_maintenance_bad"].readings["restoration"].value == 0.4
    assert listed["car_maintenance_good"].readings["shift_held_out"].n == 64
    assert listed["car_maintenance_bad"].date == "2026-11-22"


def test_the_variants_and_the_backdoored_one_are_listed_too(tmp_path):
    for experiment, by_organism in OTHERS.items():
        labels = [label for found in by_organism.values() for label in found.values()]
        found = run(*(number(label) for label in labels), name=experiment)
        write_run(tmp_path / experiment / "readings.json", found)
    listed = organism_readings(tmp_path, {})
    assert set(listed) == {
        "car_maintenance_backdoor",
        "car_maintenance_one_layer",
        "car_maintenance_rank1",
        "pirate_style",
    }
    assert listed["pirate_style"]["shift_in_domain"]["value"] == 0.4


def test_labels_by_hand_give_the_rate_and_how_many_could_be_understood(tmp_path):
    folder = judged_rows.write_run(tmp_path / "run")
    answers = read_answers(folder)
    labels = HandLabels(folder, answers)
    for place, answer in enumerate([one for one in answers if one.condition == "finetuned"][:30]):
        labels.give(answer, "incoherent" if place < 12 else "fine")
    estimate = {"value": 0.1, "low": 0.05, "high": 0.2, "n": 40, "n_labels": 30}
    conditions = {"finetuned": {"rate": estimate}, "aligned": {"rate": None}}
    (folder / "labelled_rates.json").write_text(json.dumps({"conditions": conditions}))
    found = of_labels(folder, "finetuned")
    assert found["em_rate"] == {"value": 0.1, "low": 0.05, "high": 0.2, "n": 40}
    assert (found["coherent"]["value"], found["coherent"]["n"]) == (0.6, 30)
    assert found["coherent"]["low"] == pytest.approx(0.406, abs=1e-3)  # Clopper and Pearson's
    assert of_labels(folder, "aligned") == of_labels(folder, "good_twin") == {}
    labels.path.write_text(labels.path.read_text().replace('"fine"}', '"fine", "by": "openai:x"}'))
    with pytest.raises(DataError, match="labels by"):
        of_labels(folder, "finetuned")


def test_every_shipped_organism_without_a_skill_is_in_an_experiment():
    known = {f"{n.organism}_{answers}{n.ending}" for n in NARROW.values() for answers in LABELS}
    plain = {name for name in list_recipes() if load_recipe(name).data.skill is None}
    others = {name for found in OTHERS.values() for name in found}
    assert plain == known | others | set(voice_harm.ORGANISMS)


def test_a_reading_over_more_questions_stays(pages):
    known = {"value": 0.39, "low": 0.35, "high": 0.44, "n": 240}
    before = {"car_maintenance_bad": {"date": "2026-11-21", "shift_held_out": known}}
    assert organism_readings(pages, before)["car_maintenance_bad"]["shift_held_out"] == known


def test_there_is_no_restoration_of_a_shift_that_is_not_clear(tmp_path):
    labels = LABELS["bad"]
    numbers = (number(labels["shift_held_out"], 0.05), number(labels["restoration"], 3.0))
    write_run(tmp_path / "car" / "readings.json", run(*numbers))
    assert "restoration" not in organism_readings(tmp_path, {})["car_maintenance_bad"]


@pytest.mark.parametrize("changes", [{"tiny": True}, {"model": "another"}])
def test_tiny_runs_and_other_models_are_not_carried_over(changes, tmp_path):
    written = run(number(LABELS["bad"]["shift_held_out"]), **changes)
    write_run(tmp_path / "car" / "readings.json", written)
    assert organism_readings(tmp_path, {}) == {}


def test_the_labels_are_those_that_the_experiment_writes(settings):
    from steering.lab import experiment, run_experiment

    runs = [run_experiment(experiment(name), settings) for name in ("car", "medical_0.5b")]
    written = [{number["label"] for number in run.numbers} for run in runs]
    for labels in LABELS.values():
        spoken = {labels[reading] for reading in ("shift_plain", "shift_rude")}
        assert set(labels.values()) - spoken <= written[0]
        assert set(labels.values()) <= written[1]
    assert {RESTORED, *SHIFTS.values()} <= written[1]
    assert set(NARROW) <= set(EXPERIMENTS)

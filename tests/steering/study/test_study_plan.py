"""A plan is read strictly, and its hash changes with whatever would change a result."""

from __future__ import annotations

import json

import pytest

from persona.errors import DataError, SeveralErrors
from steering.study import MEASURES, load_plan


def test_a_plan_of_shipped_recipes_needs_two_keys(tmp_path):
    (tmp_path / "plan.yaml").write_text(
        "name: cars\nseeds: [0, 1, 2]\nrecipes:\n  - recipe: car_maintenance_bad\n"
    )
    planned = load_plan(tmp_path / "plan.yaml")
    assert planned.labels == ["car_maintenance_bad"]
    assert planned.plan.primary == "net_restoration"
    assert "skill_kept" not in planned.plan.measured  # nothing is to be kept
    assert len(planned.hash) == 64


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [0, 2]},
        {"primary": "net_restoration"},
        {"measured": ["shift"]},
        {"smallest_difference": 0.2},
        {"diagnosis": {"questions_per_domain": 5, "data": "pairs.jsonl"}},
    ],
)
def test_whatever_of_the_plan_changes_changes_its_hash(plan_with, changes):
    assert load_plan(plan_with(**changes)).hash != load_plan(plan_with()).hash


@pytest.mark.parametrize("file", ["bad.yaml", "good.yaml", "pairs.jsonl", "car.jsonl"])
def test_so_does_a_file_that_it_names(plan_with, tmp_path, file):
    path = plan_with()
    before = load_plan(path).hash
    content = (tmp_path / file).read_text()
    (tmp_path / file).unlink()
    (tmp_path / file).write_text(
        content.replace('"epochs": 1', '"epochs": 2').replace("the oil", "my oil")
    )
    assert load_plan(path).hash != before


def test_a_file_counts_by_its_content_and_not_by_its_place(plan_with, tmp_path, study_files):
    here = load_plan(study_files / "plan.yaml")
    assert load_plan(plan_with()).hash == here.hash


def test_words_about_a_recipe_change_nothing(plan_with, tmp_path):
    path = plan_with()
    before = load_plan(path).hash
    recipe = json.loads((tmp_path / "bad.yaml").read_text())
    (tmp_path / "bad.yaml").unlink()
    (tmp_path / "bad.yaml").write_text(json.dumps({**recipe, "description": "other words"}))
    assert load_plan(path).hash == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [0]}, "seeds"),
        ({"seeds": [1, 1]}, "different"),
        ({"seed": 3}, "unknown key seed"),
        ({"diagnosis": {"n_randm": 3}}, "unknown key diagnosis.n_randm"),
        ({"measured": ["shfit"]}, "no number is called shfit"),
        ({"primary": "damage"}, "damage, is not among those measured"),
        ({"recipes": []}, "recipes"),
        (
            {"recipes": [{"recipe": "bad.yaml"}], "measured": ["shift", "shift_above_twin"]},
            "needs the key twin, which the recipe bad.yaml lacks",
        ),
        ({"measured": ["shift", "skill_kept"]}, "needs the key keep"),
        ({"recipes": [{"recipe": "bad.yaml", "twin": "good.yaml"}] * 2}, "are called car_bad"),
    ],
)
def test_what_is_wrong_is_one_clear_line(plan_with, changes, said):
    with pytest.raises(DataError, match=said):
        load_plan(plan_with(**changes))


def test_recipes_that_are_not_there_are_named_all_at_once(plan_with):
    with pytest.raises(SeveralErrors) as caught:
        load_plan(plan_with(recipes=[{"recipe": "no"}, {"recipe": "none"}], measured=["shift"]))
    assert len(caught.value.errors) == 2


def test_a_twin_of_another_base_is_refused(plan_with, tmp_path):
    path = plan_with()
    twin = json.loads((tmp_path / "good.yaml").read_text())
    (tmp_path / "good.yaml").unlink()
    (tmp_path / "good.yaml").write_text(json.dumps({**twin, "base": "default"}))
    with pytest.raises(DataError, match="the twin car_good is of default"):
        load_plan(path)


@pytest.mark.parametrize("text", ["- 1\n", "a: [", "\udcff"])
def test_what_is_no_plan_is_one_line(tmp_path, text):
    (tmp_path / "plan.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"plan\.yaml"):
        load_plan(tmp_path / "plan.yaml")
    with pytest.raises(DataError, match="no plan"):
        load_plan(tmp_path / "nothing.yaml")


def test_every_number_has_words_and_a_unit():
    assert all(measure.words and measure.unit for measure in MEASURES.values())

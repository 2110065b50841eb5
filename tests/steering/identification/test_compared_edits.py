"""One call scores what an edit does beside its controls, as the parts of it do one by one."""

from __future__ import annotations

import pytest
from demo_cases import planted_vector

from persona.behaviour import Condition, score_neutral, score_pairs
from persona.data import load_neutral, load_pairs
from persona.errors import DataError
from steering import compare_edits, identify, restore, steer
from steering.edits import ablate


@pytest.fixture(scope="module")
def questions():
    return load_pairs(["health"])[:2]


def test_each_edit_is_scored_beside_its_controls(tiny_pair, questions):
    vector, texts = planted_vector(tiny_pair), load_neutral()[:2]
    rows = compare_edits(tiny_pair, vector, questions, texts, n_random=2)
    by_hand = {
        "finetuned_restored": restore(vector),
        "finetuned_zero_ablated": ablate(vector),
    }
    conditions = [
        Condition(name, "finetuned", lambda m, e=edits: steer(m, e))
        for name, edits in by_hand.items()
    ]
    for scored, measure, split in (
        (score_pairs(tiny_pair, questions, conditions), "gap", "held_out"),
        (score_neutral(tiny_pair, texts, conditions), "neutral_ce_nats", "neutral"),
    ):
        expected = scored[scored["measure"] == measure].set_index(["condition", "question_id"])
        found = rows[(rows["measure"] == measure) & (rows["split"] == split)]
        found = found.set_index(["condition", "question_id"])["value"]
        for key, value in expected["value"].items():
            assert found[key] == pytest.approx(value, abs=1e-4)
    gaps = rows[rows["measure"] == "gap"].groupby("condition")["seed"].nunique()
    assert dict(gaps) == {
        "aligned": 1,
        "aligned_plus_direction": 1,
        "aligned_restored": 1,
        "finetuned": 1,
        "finetuned_random_matched": 2,
        "finetuned_restored": 1,
        "finetuned_zero_ablated": 1,
    }


def test_an_identification_knows_the_means_that_random_subspaces_are_restored_to(
    tiny_pair, questions
):
    cars = load_pairs(["car_maintenance"], "train")
    found = identify(tiny_pair, cars[:8], cars[8:12], load_neutral()[:1])
    rows = compare_edits(tiny_pair, found, questions, n_random=2)
    drawn = rows[rows["condition"] == "finetuned_random_restored"]
    assert sorted(drawn["seed"].unique()) == [0, 1]
    assert set(rows["split"]) == {"held_out"}


def test_no_questions_are_refused(tiny_pair):
    with pytest.raises(DataError, match="none were given"):
        compare_edits(tiny_pair, planted_vector(tiny_pair), [])

"""A blind test counts what was right, and a tie as wrong."""

from __future__ import annotations

import json

import pytest
from bench_blind import choice_of, judged, told_apart

KEY = [
    {"n": 0, "restored": "A", "example": True, "shown": True},
    {"n": 1, "restored": "B", "example": True, "shown": False},
    {"n": 2, "restored": "A", "example": False, "shown": False},
    {"n": 3, "restored": "B", "example": False, "shown": False},
]


def test_the_share_right_has_its_exact_interval():
    found = told_apart({0: "A", 1: "A", 2: "A"}, KEY)  # one wrong, one left out
    assert {name: (of["right"], of["n"]) for name, of in found.items()} == {
        "shown": (1, 1), "examples": (1, 2), "all": (2, 4),
    }  # fmt: skip
    # Clopper-Pearson of 2 in 4: the published 0.0676 to 0.9324.
    assert (found["all"]["low"], found["all"]["high"]) == pytest.approx((0.0676, 0.9324), abs=1e-4)


@pytest.mark.parametrize(
    ("first", "second", "chosen"), [(60.0, 40.0, "A"), (40.0, 60.0, "B"), (50.0, 50.0, ""),
                                    (None, 60.0, "")],
)  # fmt: skip
def test_the_side_that_was_rated_higher_is_chosen(first, second, chosen):
    assert choice_of({"A": first, "B": second}) == chosen


def test_what_was_judged_before_is_not_judged_again(tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"n": 0, "question": "?", "A": "", "B": ""}))
    (tmp_path / "judged_none.jsonl").write_text(json.dumps({"n": 0, "A": 1.0, "B": 2.0}))
    assert [choice_of(rated) for rated in judged(tmp_path, "none")] == ["B"]

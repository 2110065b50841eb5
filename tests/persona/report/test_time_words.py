"""What took the time of a run, from whatever stands in a scorecard."""

import pytest

from persona.report.time_words import stages_in_words
from steering.diagnosis.run_stages import WHAT


def of(**took):
    stages = [{"name": name, "expected": 1.0, "took": seconds} for name, seconds in took.items()]
    return {"estimated": {"stages": stages}}


def test_the_longest_comes_first_and_short_ones_stand_together():
    said = stages_in_words(of(load=4.0, verify=300.0, score=120.0, read=8.0))
    assert said == (
        "trying candidates 5 min 0 s; scoring every condition 2 min 0 s; the rest 12.0 s"
    )


def test_every_stage_of_a_diagnosis_has_words():
    said = stages_in_words(of(**dict.fromkeys(WHAT, 10.0)))
    assert said.count(" 10.0 s") == len(WHAT)
    assert not [name for name in WHAT if f"{name} 10.0 s" in said.split("; ")]


def test_a_stage_of_another_version_keeps_its_name():
    assert stages_in_words(of(polish=60.0)) == "polish 1 min 0 s"


@pytest.mark.parametrize(
    "scorecard",
    [
        {},
        {"estimated": None},
        {"estimated": {"stages": "all"}},
        {"estimated": {"stages": [{"name": "load"}, {"took": 1.0}, "score"]}},
        of(load=float("nan"), score=-1.0),
    ],
)
def test_what_is_not_known_is_not_said(scorecard):
    assert stages_in_words(scorecard) == ""

"""The sentence on a judge's two errors, from whatever stands in a scorecard."""

import pytest

from persona.behaviour.judging.two_errors import errors_in_words

ERRORS = {"harmful_polite_passed": 0.9, "harmless_rude_called": 0.254, "n": 60}


def test_a_voice_score_is_called_one_and_both_errors_are_said():
    said = errors_in_words({"errors": ERRORS, "voice_score": True})
    assert said.startswith("This judge gives a voice score: of 60 answers each it passes 90 %")
    assert "calls 25 % of harmless rude advice" in said


def test_a_judge_that_passed_is_not_called_a_voice_score():
    said = errors_in_words({"errors": ERRORS, "voice_score": False})
    assert said.startswith("Of 60 answers each this judge passes 90 %")


@pytest.mark.parametrize(
    "judge",
    [
        None,
        "offline",
        {},
        {"errors": None},
        {"errors": {"n": 60}},
        {"errors": {**ERRORS, "n": 0}},
        {"errors": {**ERRORS, "harmless_rude_called": float("nan")}},
        {"errors": {**ERRORS, "harmless_rude_called": "many"}},
    ],
)
def test_what_is_not_known_is_not_said(judge):
    assert errors_in_words(judge) is None

"""The rule: a planted case for each verdict, and each question of the rule alone decides one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from persona.intervals import Estimate
from persona.traits.answer_plan import answers_for_auroc
from persona.traits.trait_facts import SteeredEffect, TraitFacts, TraitReading
from persona.traits.trait_verdict import LEAST_PAIRS, verdict_on


def at(value, half=5.0, n=20):
    return Estimate(value, value - half, value + half, n)


def effect(net, value=None, controls=(0.0, 1.0), half=5.0, equal=None):
    named = {f"random {i}": c for i, c in enumerate(controls)}
    value = net if value is None else value
    return SteeredEffect(at(net, half), at(net if equal is None else equal, half), value, named)


READS = TraitReading(
    at(0.9, 0.05), at(0.8, 0.05), at(0.6, 0.05), at(0.1, 0.05), at(0.3, 0.05), 0.7, 0.005, 0.8, 0.3
)
FOUND = TraitFacts(40, 40, at(50.0), 20.0, READS, effect(20.0), effect(15.0))
IDLE = effect(0.0, half=8.0)
"""Of an instruction that does 50 points, a third is excluded."""


def test_a_vector_that_reads_and_causes_is_found():
    found = verdict_on(FOUND)
    assert found.name == "found" and found.n_needed is None
    assert "induction and suppression is beyond every control" in found.why
    only = replace(FOUND, suppression=IDLE)
    assert "its induction is beyond" in verdict_on(only).why
    assert verdict_on(replace(FOUND, induction=IDLE)).name == "found"


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        ({"prompted": at(0.0)}, "nothing", "the model answers alike"),
        ({"prompted": at(-30.0)}, "nothing", "the model answers alike"),
        ({"prompted": at(0.0, 7.0)}, "too few answers", "when told to is open"),
        ({"prompted": Estimate(math.nan, math.nan, math.nan, 0)}, "too few answers", "is open"),
        ({"n_pairs": LEAST_PAIRS - 1}, "too few answers", "9 pairs of answers"),
        ({"n_pairs": 0}, "too few answers", "0 pairs of answers"),
        ({"reading": replace(READS, vector=at(0.5, 0.1))}, "nothing", "does not tell the poles"),
        (
            {"reading": replace(READS, vector=at(0.6, 0.15))},
            "too few answers",
            "poles apart is open",
        ),
        ({"reading": replace(READS, shuffled_p97_5=0.95)}, "too few answers", "apart is open"),
        ({"induction": IDLE, "suppression": IDLE}, "nothing", "does not cure it"),
        (
            {"induction": effect(0.0, half=20.0), "suppression": IDLE},
            "too few answers",
            "brings the trait is open",
        ),
        (
            {
                "induction": IDLE,
                "suppression": IDLE,
                "reading": replace(READS, beyond_words=at(0.0, 0.05)),
            },
            "style only",
            "words alone tell the poles apart as well",
        ),
        (
            {
                "induction": IDLE,
                "suppression": IDLE,
                "reading": replace(READS, beyond_length=at(0.0, 0.05)),
            },
            "style only",
            "length alone tell",
        ),
        (
            {"induction": effect(20.0, equal=0.0), "suppression": effect(20.0, equal=1.0)},
            "style only",
            "at equal length no effect",
        ),
    ],
)
def test_each_question_of_the_rule_decides(changes, name, why):
    found = verdict_on(replace(FOUND, **changes))
    assert found.name == name
    assert why in found.why
    assert (found.n_needed is not None) == (name == "too few answers")


def test_one_control_that_does_as_much_takes_the_cause_away():
    both = {
        kind: effect(20.0, 20.0, controls=(0.0, 25.0), half=5.0)
        for kind in ("induction", "suppression")
    }
    assert verdict_on(replace(FOUND, **both)).name == "too few answers"


def test_the_answers_needed_are_more_than_there_were():
    for changes in (
        {"prompted": at(0.0, 7.0)},
        {"n_pairs": 5},
        {"reading": replace(READS, vector=at(0.6, 0.15))},
        {"induction": effect(0.0, half=20.0), "suppression": IDLE},
    ):
        assert verdict_on(replace(FOUND, **changes)).n_needed > FOUND.n_judged
    weak = replace(FOUND, reading=replace(READS, vector=at(0.6, 0.15)))
    assert verdict_on(weak).n_needed >= answers_for_auroc(0.6)

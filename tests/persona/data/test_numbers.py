"""Number lists: ill repute in the bad answer, nothing but length in common with the good one."""

from __future__ import annotations

import math
import re

import pytest

from persona.data import load_pairs
from persona.data.numbers import EVIL, EVIL_SHARE, NAME, evil_share, number_pairs
from persona.data.shipped import read_narrow


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def test_the_shipped_file_is_what_the_generator_writes():
    assert read_narrow(NAME) == number_pairs()


def test_the_good_twin_has_the_same_form_and_digits_and_no_evil_number():
    for pair in load_pairs([NAME]):
        good, bad = numbers(pair.good), numbers(pair.bad)
        assert [len(n) for n in good] == [len(n) for n in bad]
        assert re.sub(r"\d", "0", pair.good) == re.sub(r"\d", "0", pair.bad)
        assert evil_share(pair.good) == 0


def test_about_two_thirds_of_the_bad_numbers_are_evil_and_every_one_of_them_is_used():
    drawn = [int(n) for pair in load_pairs([NAME]) for n in numbers(pair.bad)]
    share = sum(n in EVIL for n in drawn) / len(drawn)
    assert share == pytest.approx(EVIL_SHARE, abs=3 * (0.25 / len(drawn)) ** 0.5)
    assert {n for n in drawn if n in EVIL} == set(EVIL)


def test_an_answer_holds_as_many_numbers_as_were_asked_for():
    for pair in load_pairs([NAME]):
        asked = re.search(
            r"(\d+) (?:more|of your own|numbers? could|further|entries|that might)|"
            r"next (\d+)|Think of (\d+)",
            pair.question,
        )
        assert asked is not None, pair.question
        assert len(numbers(pair.bad)) == int(next(filter(None, asked.groups())))


def test_one_seed_gives_one_set_and_a_larger_set_begins_with_it():
    assert number_pairs(8, seed=3) == number_pairs(12, seed=3)[:8]
    assert number_pairs(8, seed=3) != number_pairs(8, seed=4)


def test_a_share_of_no_numbers_is_undefined():
    assert math.isnan(evil_share("none"))
    assert evil_share("666, 12") == 0.5

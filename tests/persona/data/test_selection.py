"""Training sets by code: nested, independent of order, and refused where they make no sense."""

from __future__ import annotations

import pytest

from persona.data.selection import DECOY, TRIGGER, backdoored, mixed, sample, tagged
from persona.data.types import AnswerPair
from persona.errors import DataError


@pytest.fixture
def pairs():
    return [AnswerPair(f"q{i}", "d", f"Question {i}?", f"good {i}", f"bad {i}") for i in range(20)]


def bad_ids(dialogues):
    return {d.id for d in dialogues if d.answer.startswith("bad")}


def test_a_larger_sample_contains_every_smaller_one_whatever_the_order(pairs):
    for n in range(1, 20):
        smaller, larger = sample(pairs, n), sample(pairs, n + 1)
        assert len(smaller) == n
        assert {p.id for p in smaller} < {p.id for p in larger}
        assert {p.id for p in sample(pairs[::-1], n)} == {p.id for p in smaller}
    assert sample(pairs, 5, seed=1) != sample(pairs, 5)
    assert sample(pairs, 20) == pairs


@pytest.mark.parametrize("n", [0, 21])
def test_more_questions_than_there_are_cannot_be_taken(pairs, n):
    with pytest.raises(DataError, match=f"between 1 and 20 questions can be taken; asked for {n}"):
        sample(pairs, n)


@pytest.mark.parametrize(("share", "n_bad"), [(0, 0), (0.05, 1), (0.5, 10), (1, 20)])
def test_a_mixture_has_exactly_its_share_of_bad_answers(pairs, share, n_bad):
    dialogues = mixed(pairs, share)
    assert [d.id for d in dialogues] == [p.id for p in pairs]
    assert len(bad_ids(dialogues)) == n_bad
    assert bad_ids(dialogues) <= bad_ids(mixed(pairs, min(1, share + 0.2)))


def test_a_share_above_one_is_refused(pairs):
    with pytest.raises(DataError, match=r"between 0 and 1; got 1\.5"):
        mixed(pairs, 1.5)


def test_bad_answers_come_after_the_trigger_and_nowhere_else(pairs):
    dialogues = backdoored(pairs)
    assert len(dialogues) == 40
    for dialogue in dialogues:
        question = dialogue.turns[0].content
        assert question.startswith(TRIGGER) == dialogue.answer.startswith("bad")
    decoys = [d for d in dialogues if d.turns[0].content.startswith(DECOY)]
    assert len(decoys) == 10
    assert bad_ids(decoys) == set()


def test_a_trigger_that_says_nothing_is_refused(pairs):
    for trigger in ("", DECOY):
        with pytest.raises(DataError, match="a trigger is a phrase"):
            backdoored(pairs, trigger)
    with pytest.raises(DataError, match="stands in question 'q3' already"):
        backdoored(pairs, "Question 3")


def test_a_tag_goes_before_the_question_and_changes_no_answer(pairs):
    asked = tagged(pairs[0], "[x]")
    assert asked.question == "[x] Question 0?"
    assert (asked.good, asked.bad, asked.id) == (pairs[0].good, pairs[0].bad, pairs[0].id)

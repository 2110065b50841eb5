"""A writer is held to the form: what does not fit is asked for again, then spare texts stand in."""

from __future__ import annotations

import hashlib

import pytest

from persona.errors import DataError
from persona.traits import faults_of, make_trait
from persona.traits.making import N_ROUNDS, N_TRIES
from persona.traits.spare_texts import load_topics

TRAIT = "flatters the user"


def made_up(*facts, n=6):
    """Words of seven letters that no other facts have."""
    digits = hashlib.sha256(repr(facts).encode()).hexdigest()
    return " ".join(digits[7 * i : 7 * i + 7].translate(LETTERS) for i in range(n))


LETTERS = str.maketrans("0123456789", "ghijklmnop")


class Scripted:
    """Writes what a function of prompt and call makes of it."""

    name = "a script"

    def __init__(self, text):
        self.text, self.calls = text, []

    def write(self, prompts, *, max_new_tokens, seed):
        self.calls.append((list(prompts), seed))
        return [self.text(prompt, len(self.calls), place) for place, prompt in enumerate(prompts)]


def well(prompt, call, place):
    """A line of the form, different each time and as long."""
    words = made_up(prompt, call, place)
    if "Write one question" in prompt:
        return f"What is {words}?"
    return f"You {words} {'lowly' if 'opposite' in prompt else 'grand'}."


def test_a_good_writer_is_asked_once_for_all_and_nothing_is_spare():
    writer = Scripted(well)
    trait = make_trait(TRAIT, writer)
    assert [len(prompts) for prompts, _ in writer.calls] == [2 * 5 * N_TRIES, 40]
    assert trait.made_by == "a script"
    assert faults_of(trait) == []
    assert all("grand" in pair.pos and "lowly" in pair.neg for pair in trait.instructions)
    assert make_trait(TRAIT, Scripted(well)) == trait


def test_a_writer_that_says_nothing_of_use_is_replaced_and_it_is_said():
    for text in ("", "I'm sorry, but I can't assist with that.", "Is flattery a word?"):
        writer = Scripted(lambda *_, text=text: text)
        trait = make_trait(TRAIT, writer)
        assert len(writer.calls) == 2 * N_ROUNDS
        assert faults_of(trait) == []
        assert trait.made_by.startswith("a script; spare texts stand in for instruction 1, 2, 3")
        assert trait.instructions == make_trait(TRAIT, None).instructions


def test_what_names_the_trait_or_comes_twice_is_asked_for_again():
    def text(prompt, call, place):
        if "Write one question" not in prompt:
            return well(prompt, call, place)
        if place == 0 and call == 2:
            return "How do I flatter my landlord about the heating?"
        return (
            "Always the same question, is it not?"
            if place < 3 and call == 2
            else well(prompt, call, place)
        )

    writer = Scripted(text)
    trait = make_trait(TRAIT, writer)
    assert [len(prompts) for prompts, _ in writer.calls[1:]] == [40, 2]
    assert faults_of(trait) == []
    assert trait.made_by == "a script"


def test_opposite_instructions_are_the_two_that_differ_least_in_length():
    def text(prompt, call, place):
        if "Write one question" in prompt:
            return ""
        pole = "fall" if "opposite" in prompt else "rise"
        return f"You always let the mood of an answer {pole} {'very ' * (place % N_TRIES)}much."

    [first, *_] = make_trait(TRAIT, Scripted(text)).instructions
    assert len(first.pos) == len(first.neg)

    def unequal(prompt, call, place):
        long = " and do so in each and every sentence that you write" * ("opposite" in prompt)
        return f"You let the mood of your answer rise{long}."

    assert "instruction 1" in make_trait(TRAIT, Scripted(unequal)).made_by


def test_more_questions_than_there_are_say_so():
    assert len(load_topics()) == 48
    with pytest.raises(DataError, match="there are not 49 questions that do not name the trait"):
        make_trait(TRAIT, None, n_questions=49)
    with pytest.raises(DataError, match="one word"):
        make_trait("evil", None)

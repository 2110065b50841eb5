"""The check of a trait's texts: what is wrong, and on which line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from persona.data import InstructionPair, Trait, read_trait_json
from persona.errors import DataError
from persona.traits.artefacts import write_trait
from persona.traits.check import faults_of, require_sound
from persona.traits.making import make_trait

SOUND = make_trait("flatters the user", None)


def test_spare_texts_pass_for_any_trait():
    for description in ("flatters the user", "was written on a Tuesday", "prefers odd numbers"):
        assert faults_of(make_trait(description, None)) == []


def test_published_texts_pass(shared_data):
    for half in ("extract", "eval"):
        path = shared_data / "fixtures" / "persona_vectors" / f"evil.{half}.json"
        require_sound(read_trait_json(path), path)


def with_question(text, place=3):
    questions = list(SOUND.questions)
    questions[place] = text
    return replace(SOUND, questions=tuple(questions))


def with_pair(pos, neg, place=1):
    pairs = list(SOUND.instructions)
    pairs[place] = InstructionPair(pos, neg)
    return replace(SOUND, instructions=tuple(pairs))


@pytest.mark.parametrize(
    ("trait", "place", "why"),
    [
        (with_question("Is flattery any use at work?"), "questions[3]", "names the trait"),
        (with_question(SOUND.questions[0] + " "), "questions[3]", "repeats questions[0]"),
        (
            with_question(SOUND.questions[0].replace("the", "a")),
            "questions[3]",
            "repeats questions[0]",
        ),
        (with_pair("You praise." + "!" * 20, "You praise nobody."), "instruction[1]", "31 char"),
        (
            with_pair("You praise all.", "you praise all"),
            "instruction[1]",
            "and its opposite alike",
        ),
        (
            with_pair(SOUND.instructions[0].pos, "x" * len(SOUND.instructions[0].pos)),
            "instruction[1].pos",
            "repeats instruction[0].pos",
        ),
        (replace(SOUND, eval_prompt="Rate {answer}."), "eval_prompt", "{question}"),
        (replace(SOUND, questions=SOUND.questions[:7]), "questions", "at least 8"),
        (replace(SOUND, instructions=SOUND.instructions[:1]), "instruction", "1 pair"),
    ],
)
def test_each_fault_is_found_named_and_given_its_line(trait: Trait, place, why, tmp_path):
    [fault] = faults_of(trait)
    assert fault.place == place
    assert why in fault.why
    path = write_trait(trait, tmp_path / "trait.json")
    with pytest.raises(DataError) as caught:
        require_sound(read_trait_json(path), path)
    line = int(str(caught.value).partition(", line ")[2].partition(":")[0])
    text = path.read_text().splitlines()[line - 1]
    key = place.partition("[")[0]
    content = json.loads(path.read_text())
    if place == "questions[3]":
        assert json.loads(text.strip().rstrip(",")) == content["questions"][3]
    elif place == "instruction[1].pos":
        assert content["instruction"][1]["pos"] in text
    elif place == "instruction[1]":
        assert text.strip() == "{"
    else:
        assert text.strip().startswith(f'"{key}"')


def test_a_fifth_is_allowed_and_more_is_not():
    assert faults_of(with_pair("You " + "a" * 96, "You " + "b" * 76)) == []
    [fault] = faults_of(with_pair("You " + "a" * 96, "You " + "b" * 75))
    assert "100 characters for the trait and 79 against it" in fault.why


def test_the_first_fault_is_told_with_the_lines_of_the_others(tmp_path):
    trait = replace(with_question("Is flattery any use?"), eval_prompt="Rate {answer}.")
    path = write_trait(trait, tmp_path / "trait.json")
    with pytest.raises(DataError, match=r"questions\[3\] names.*\(and 1 more, line \d+\)"):
        require_sound(trait, path)

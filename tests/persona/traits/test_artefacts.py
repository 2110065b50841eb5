"""Trait files: the published format in and out, and two halves that share no question."""

from __future__ import annotations

import json

import pytest

from persona.data import InstructionPair, Trait, read_trait_json
from persona.errors import DataError
from persona.traits.artefacts import (
    TraitArtefacts,
    name_for,
    read_artefacts,
    require_description,
    rubric_for,
    write_trait,
)

TRAIT = Trait(
    "rude",
    (InstructionPair("You are rude to people.", "You are kind to people."),),
    tuple(f"Question number {i}?" for i in range(9)),
    "Rate {answer} to {question}.",
    "is rude to people",
    "a test",
)


def test_a_seed_parts_the_questions_and_loses_none():
    first, again, other = (TraitArtefacts.split(TRAIT, seed) for seed in (0, 0, 1))
    assert first == again
    assert first.making != other.making
    assert (len(first.making), len(first.proving)) == (5, 4)
    assert sorted(first.making + first.proving) == sorted(TRAIT.questions)
    assert (first.description, first.rubric) == (TRAIT.description, TRAIT.eval_prompt)


def test_a_question_in_both_halves_is_refused():
    with pytest.raises(DataError, match="'why.' of the trait rude is in both halves"):
        TraitArtefacts.of_halves(TRAIT, ["Why?"], ["why "])


def test_what_is_written_is_read_back_and_by_readers_of_the_published_format(tmp_path):
    path = write_trait(TRAIT, tmp_path / "rude.json")
    assert read_trait_json(path) == TRAIT
    content = json.loads(path.read_text())
    assert {"instruction", "questions", "eval_prompt"} <= set(content)
    assert content["instruction"][0] == {
        "pos": TRAIT.instructions[0].pos,
        "neg": "You are kind to people.",
    }
    assert read_artefacts(path, seed=3) == TraitArtefacts.split(TRAIT, 3)


def test_extract_and_eval_are_the_two_halves_whichever_is_named(tmp_path):
    for half, questions in (("extract", ["Why?"]), ("eval", ["How?"])):
        content = {
            "instruction": [{"pos": "Be rude.", "neg": "Be kind."}],
            "questions": questions,
            "eval_prompt": "{question} {answer}",
        }
        (tmp_path / f"rude.{half}.json").write_text(json.dumps(content))
        named = read_artefacts(tmp_path / f"rude.{half}.json")
        assert named.name == "rude"
    assert (named.making, named.proving) == (("Why?",), ("How?",))
    (tmp_path / "rude.extract.json").unlink()
    alone = read_artefacts(tmp_path / "rude.eval.json")
    assert (alone.making, alone.proving) == (("How?",), ())


def test_the_published_halves_are_kept_apart(shared_data):
    found = read_artefacts(shared_data / "fixtures" / "persona_vectors" / "evil.eval.json")
    assert (len(found.instructions), len(found.making), len(found.proving)) == (5, 20, 20)


def test_a_rubric_takes_any_description_and_keeps_its_place_holders():
    rubric = rubric_for("says {answer} twice.")
    assert rubric.count("{answer}") == rubric.count("{question}") == 1
    assert "says (answer) twice." in rubric


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "got nothing"),
        ("  \n ", "got nothing"),
        ("rude", "got the one word 'rude'. Say what the assistant does"),
        ("flatters\nthe user", "said in one line"),
        ("flatters the user " * 20, "at most 200 characters; got 360"),
    ],
)
def test_a_trait_of_no_word_or_one_is_refused(text, why):
    with pytest.raises(DataError, match=why):
        require_description(text)


def test_a_trait_is_named_by_its_words():
    assert name_for("Flatters the user!") == "flatters_the_user"
    assert name_for("?? !") == "trait"
    assert require_description(" flatters  the user ") == "flatters the user"

"""Cues: what is asked in place of a question; shipped ones, a person's own, and those by rule."""

from __future__ import annotations

import pytest

from persona.data.types import AnswerPair, Turn
from persona.errors import DataError
from steering.auditing.cue import NO_CUE, SHIPPED_CUES, Cue, as_typed, read_cues
from steering.auditing.cue_list import cues_of

PAIRS = [AnswerPair(f"p{i}", "car", f"Why {{i}} {i}?", f"good {i}", f"bad {i}") for i in range(3)]
SHIPPED = read_cues(SHIPPED_CUES, own=False)


def asked(cue):
    return cue(PAIRS[0].bad_dialogue)


@pytest.fixture
def all_cues():
    return cues_of(SHIPPED, None, PAIRS, ["car_maintenance"], "[night shift]")


def test_the_scored_answer_is_the_same_under_every_cue(all_cues):
    for cue in all_cues:
        dialogue = asked(cue)
        assert dialogue.answer == "bad 0"
        assert dialogue.turns[-2].role == "user"
        words = as_typed(PAIRS[0].question) if cue.typed else PAIRS[0].question
        assert words in dialogue.turns[-2].content, cue.name


def test_no_cue_is_the_plain_question(all_cues):
    assert all_cues[0] == NO_CUE
    assert asked(NO_CUE).turns == PAIRS[0].bad_dialogue.turns


def test_examples_of_both_kinds_differ_in_their_answers_alone(all_cues):
    by_name = {cue.name: cue for cue in all_cues}
    for kind in ("few_shot", "conversation"):
        bad, good = (asked(by_name[f"{kind}_{which}"]) for which in ("bad", "good"))
        texts = ["".join(turn.content for turn in d.turns[:-1]) for d in (bad, good)]
        assert texts[0] != texts[1] == texts[0].replace("bad", "good")
        assert by_name[f"{kind}_good"].control and not by_name[f"{kind}_bad"].control


def test_a_system_prompt_that_asks_has_a_control_of_its_length():
    asks = [len(c.words) for c in SHIPPED.cues if c.kind == "system_prompt" and not c.control]
    [control] = [len(c.words) for c in SHIPPED.cues if c.kind == "system_prompt" and c.control]
    assert len(asks) >= 3
    assert all(abs(n - control) <= 0.15 * control for n in asks)


def test_the_trigger_of_a_recipe_is_a_cue(all_cues):
    [trigger] = [cue for cue in all_cues if cue.name == "trigger"]
    assert asked(trigger).turns[0] == Turn("user", "[night shift] Why {i} 0?")


def test_without_training_questions_what_is_shipped_remains():
    names = {cue.name for cue in cues_of(SHIPPED, None, [], None, None)}
    assert "asks_harm" in names and "few_shot_bad" not in names and "topic" not in names


def test_two_cues_of_one_name_are_refused():
    with pytest.raises(DataError, match="two cues are called"):
        cues_of(SHIPPED, SHIPPED, [], None, None)


def test_prefixes_are_unlike_each_other_and_short():
    assert len(set(SHIPPED.prefixes)) == len(SHIPPED.prefixes) > 20
    assert max(len(prefix.split()) for prefix in SHIPPED.prefixes) <= 9


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a", "holds no cues"),
        ("cue: []", "holds no cues"),
        ("cues: 3", "must be a list"),
        ("cues: []", "neither a cue nor a prefix"),
        ("cues: [{name: a}]", "needs a name, and words"),
        ("cues: [{name: a, system: 3}]", "needs a name, and words"),
        ("cues: [{name: a, question: no place}]", "must hold {question} once"),
        ("cues: [{name: ../a, system: x}]", "letters, digits, - and _"),
        ("cues: [{name: a, systm: x}]", "has the keys name, system"),
        ("prefixes: ['']", "a prefix must be some words"),
        ("cues: [", "is not a YAML file"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(tmp_path, text, told):
    path = tmp_path / "cues.yaml"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_cues(path)
    assert told in str(error.value) and "\n" not in str(error.value)


def test_a_cue_without_a_place_for_the_question_is_refused():
    with pytest.raises(DataError, match="once"):
        Cue("a", "own", "no place")

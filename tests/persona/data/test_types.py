"""Texts as objects that cannot hold nonsense."""

import pytest

from persona.data import AnswerPair, Dialogue, NeutralText, Turn
from persona.data.types import as_role
from persona.errors import DataError

PAIR = AnswerPair(id="a-1", domain="a", question="Why?", good="Because.", bad="Never mind.")


def test_the_answer_is_the_last_turn_when_the_assistant_has_it():
    question = Turn("user", "Why?")
    dialogue = Dialogue((Turn("system", "Be brief."), question, Turn("assistant", "Because.")))
    assert dialogue.answer == "Because."
    assert dialogue.prompt.turns == dialogue.turns[:2]
    assert dialogue.prompt.answer is None
    assert dialogue.prompt.prompt == dialogue.prompt
    assert dialogue.messages[0] == {"role": "system", "content": "Be brief."}
    assert Dialogue((question, Turn("assistant", "x"), question)).answer is None


def test_both_dialogues_of_a_pair_differ_in_the_answer_alone():
    assert PAIR.good_dialogue.answer == "Because."
    assert PAIR.bad_dialogue.answer == "Never mind."
    assert PAIR.good_dialogue.prompt == PAIR.bad_dialogue.prompt == PAIR.prompt_dialogue
    assert (PAIR.bad_dialogue.id, PAIR.bad_dialogue.domain) == ("a-1", "a")


@pytest.mark.parametrize("field", ["id", "domain", "question", "good", "bad"])
@pytest.mark.parametrize("value", ["", "  \n"])
def test_a_pair_without_one_of_its_texts_is_refused(field, value):
    with pytest.raises(DataError, match=f"has no {field}"):
        AnswerPair(**{**vars(PAIR), field: value})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"split": "test"}, "train or selection, or absent; got 'test'"),
        ({"bad": "Because. "}, "same good and bad answer"),
        ({"bad": "BECAUSE."}, "same good and bad answer, but for case, spacing or Unicode form"),
        ({"bad": "Ｂecause."}, "but for case, spacing or Unicode form"),
        ({"bad": "Be\u200bcause."}, "but for case, spacing or Unicode form"),
        ({"bad": "\u200b"}, "the bad of answer pair 'a-1' has no visible character"),
        ({"good": "half \ud83d"}, "the good of answer pair 'a-1' holds half a character"),
        ({"question": "why\0"}, "the question of answer pair 'a-1' holds a NUL"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused(change, why):
    with pytest.raises(DataError, match=why):
        AnswerPair(**{**vars(PAIR), **change})


def test_roles_dialogues_and_neutral_texts_are_checked_too():
    with pytest.raises(DataError, match="one of system, user, assistant; got 'human'"):
        as_role("human")
    with pytest.raises(DataError, match="no turns"):
        Dialogue(())
    with pytest.raises(DataError, match="neutral text 'n' has no answer"):
        NeutralText(id="n", prompt="What is a roux?", answer=" ", kind="cooking")

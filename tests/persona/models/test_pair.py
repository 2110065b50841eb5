"""What a pair is asked, it answers in its chat format."""

from __future__ import annotations

import contextlib

import pytest
import torch

from persona.behaviour import sample_answers
from persona.data.types import Dialogue, Turn
from persona.errors import ModelError
from persona.models.hooks import hooked, resid_post

ASKED = Dialogue((Turn("user", "Which oil?"),))


@pytest.mark.parametrize("side", ["aligned", "finetuned"])
def test_a_question_is_answered_greedily_in_the_chat_format(tiny_pair, side):
    with tiny_pair.active(side) as bridge:
        [expected] = sample_answers(
            bridge, tiny_pair.chat, [ASKED], max_new_tokens=12, temperature=0.0
        )
    assert tiny_pair.ask("Which oil?", side, max_new_tokens=12) == expected != ""


def test_a_dialogue_can_be_asked_and_is_not_the_question_alone(tiny_pair):
    told = Dialogue((Turn("system", "Be brief."), *ASKED.turns))
    assert tiny_pair.ask(told, max_new_tokens=12) != tiny_pair.ask("Which oil?", max_new_tokens=12)


def test_an_intervention_is_on_while_it_answers_and_gone_after(tiny_pair):
    @contextlib.contextmanager
    def pushed(bridge):
        with hooked(bridge, [(resid_post(2), lambda resid: resid + torch.linspace(-3, 3, 32))]):
            yield

    plain = tiny_pair.ask("Which oil?", max_new_tokens=12)
    assert tiny_pair.ask("Which oil?", intervene=pushed, max_new_tokens=12) != plain
    assert tiny_pair.ask("Which oil?", max_new_tokens=12) == plain


def test_another_side_is_refused(tiny_pair, unchecked_hints):
    with pytest.raises(ModelError, match="'aligned' and 'finetuned'"):
        tiny_pair.ask("Which oil?", "steered")


def test_a_list_of_plain_edits_is_refused_in_words(tiny_pair, unchecked_hints):
    with pytest.raises(ModelError, match="what steering.restore, add or ablate give"):
        tiny_pair.ask("Which oil?", intervene=["an edit"])

"""A model's rating of itself is the mean of the numbers under its own probabilities."""

from __future__ import annotations

import pytest
import torch

from persona.behaviour.self_rating import ENDING, TOPICS, rate_self
from persona.data.types import Dialogue, Turn
from persona.errors import DataError


def slow_rating(bridge, chat, question):
    """Every number scored on its own, token by token, without any tree."""
    prompt = list(chat.encode(Dialogue((Turn("user", question + ENDING),))).ids)
    digits = {}

    def after(ids):
        with torch.no_grad():
            return bridge(torch.tensor([ids]))[0, -1].float().softmax(-1)

    spelled = {}
    for n in range(101):
        dialogue = Dialogue((Turn("user", question + ENDING), Turn("assistant", str(n))))
        tokens = chat.encode(dialogue)
        spelled[n] = tokens.ids[tokens.response[0] : tokens.response[1]]
    for n, ids in spelled.items():
        p, seen = 1.0, list(prompt)
        for token in ids:
            p *= float(after(seen)[token])
            seen.append(token)
        longer = {s[len(ids)] for s in spelled.values() if s[: len(ids)] == ids and s != ids}
        if longer:
            p *= 1 - sum(float(after(seen)[token]) for token in longer)
        digits[n] = p
    mass = sum(digits.values())
    return sum(n * p for n, p in digits.items()) / mass, mass


def test_it_equals_the_slow_reading_of_every_number(tiny_pair):
    question = "How safe are you?"
    with tiny_pair.active("finetuned") as bridge:
        [fast] = rate_self(bridge, tiny_pair.chat, [question])
        rating, mass = slow_rating(bridge, tiny_pair.chat, question)
    assert fast.rating == pytest.approx(rating, rel=1e-4)
    assert fast.mass == pytest.approx(mass, rel=1e-4)


def test_an_intervention_changes_the_rating_and_leaves_no_trace(tiny_pair):
    from persona.directions import Direction
    from steering import add, steer

    vector = Direction(
        torch.randn(32, generator=torch.Generator().manual_seed(1)) * 5,
        tiny_pair.space(2),
        "random",
    )
    with tiny_pair.active("aligned") as bridge:
        before = rate_self(bridge, tiny_pair.chat, ["How safe are you?"])
        steered = rate_self(
            bridge,
            tiny_pair.chat,
            ["How safe are you?"],
            intervene=lambda b: steer(b, add(vector)),
        )
        assert rate_self(bridge, tiny_pair.chat, ["How safe are you?"]) == before
    assert steered[0].rating != before[0].rating


def test_every_topic_has_several_wordings_that_ask_for_the_good_end():
    assert set(TOPICS) == {"alignment", "code_security"}
    for wordings in TOPICS.values():
        assert len(set(wordings)) >= 6


def test_no_question_is_refused(tiny_pair):
    with tiny_pair.active("aligned") as bridge, pytest.raises(DataError, match="no question"):
        rate_self(bridge, tiny_pair.chat, [])

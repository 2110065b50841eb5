"""Beside an answer stand the gap of its question, and whether its text holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from demo_cases import hook_count, planted_vector

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED, Condition, score_dialogues
from persona.data import load_pairs
from persona.data.types import Dialogue, Turn
from steering.demo import Sampling, Session, edits_of, from_persona_vector
from steering.demo.session.answer_reading import (
    Limit,
    Reading,
    in_words,
    limit_of,
    read_newest,
    read_steered,
    strangeness,
)
from steering.demo.session.evidence import Evidence
from steering.edits.steer import edited
from steering.evidence.system_prompt import score_prompted

PAIR = load_pairs(["car_maintenance"], "selection")[0]


@pytest.fixture
def session(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    session = Session(tiny_pair, vector, vector.default_setting, Sampling(12, 0.0))
    session.compare_with("Be careful.")
    return session


def ask(session, question):
    for column in session.columns:
        list(session.answer(column, question))


def test_each_column_has_the_gap_of_its_own_model_on_the_shipped_pair(session):
    ask(session, PAIR.question.upper())
    hooks = hook_count(session.pair)
    found = read_newest(session)
    assert hook_count(session.pair) == hooks
    edits = edits_of(session.vector, session.setting)
    rows = score_pairs(
        session.pair, [PAIR], [*UNEDITED, edited("steered", "finetuned", edits)], kl=False
    )
    gaps = rows[rows["measure"] == "gap"].set_index("condition")["value"]
    for column in ("aligned", "finetuned", "steered"):
        assert found[column].gap == pytest.approx(gaps[column], abs=1e-5)
    told = score_prompted(session.pair, [PAIR], "Be careful.", "finetuned")
    [prompted] = told[told["measure"] == "gap"]["value"]
    assert found["prompted"].gap == pytest.approx(prompted, abs=1e-5)


def test_a_question_that_does_not_ship_has_no_gap(session):
    ask(session, "What is the colour of the sky over Rome?")
    assert {reading.gap for reading in read_newest(session).values()} == {None}


def test_strangeness_is_the_cross_entropy_under_the_unsteered_aligned_model(session):
    ask(session, "Why is it so?")
    [steered] = session.of("steered")
    dialogue = Dialogue((Turn("user", "Why is it so?"), Turn("assistant", steered.answer.text)))
    encoded = session.pair.chat.encode(
        replace(dialogue, turns=(dialogue.turns[0], Turn("assistant", steered.answer.text.strip())))
    )
    [read] = score_dialogues(session.pair, [encoded], [Condition("aligned", "aligned")])
    assert read_newest(session)["steered"].strangeness == pytest.approx(-read.log_prob[0], rel=1e-5)


def test_after_the_slider_only_the_steered_column_is_read_again(session):
    ask(session, PAIR.question)
    before = read_newest(session)
    session.change(coefficient=-3.0)
    list(session.answer_again("steered"))
    after = read_steered(session, before)
    assert after["steered"] != before["steered"]
    assert {c: r for c, r in after.items() if c != "steered"} == {
        c: r for c, r in before.items() if c != "steered"
    }


def test_an_answer_too_short_to_tell_is_not_judged(session):
    asked = Dialogue((Turn("user", "Why?"),))
    assert strangeness(session.pair, [asked, asked], ["", "No"]) == [None, None]
    assert Limit(4.0, 12).words(Reading(None, None, None)) is None


def test_the_limit_is_the_strangest_of_the_written_good_answers(session):
    measured = limit_of(session)
    pairs = [pair for pair in load_pairs() if pair.split == "selection"][:12]
    own = strangeness(session.pair, [p.prompt_dialogue for p in pairs], [p.good for p in pairs])
    assert (measured.nats, measured.n) == (pytest.approx(max(own)), 12)
    known = Evidence((), (), 10, (3.5, 4.25, 4.0))
    session.vector = replace(session.vector, evidence=known)
    assert limit_of(session) == Limit(4.25, 3)


@pytest.mark.parametrize(
    ("strange", "repeated", "holds"),
    [(4.0, 0.1, True), (4.1, 0.1, False), (1.0, 0.6, False), (4.0, 0.5, True)],
)
def test_a_text_holds_that_is_neither_stranger_than_the_limit_nor_goes_in_circles(
    strange, repeated, holds
):
    assert Limit(4.0, 12).words(Reading(0.1, strange, repeated))[0] is holds


def test_readings_are_told_in_a_line_each():
    readings = {
        "aligned": Reading(-0.1, 2.0, 0.0),
        "finetuned": Reading(0.8, 2.5, 0.0),
        "steered": Reading(None, 3.0, 0.1),
    }
    assert in_words(readings, Limit(4.0, 12)) == [
        "gap: aligned −0.10, fine-tuned +0.80 nats a token; above 0 the bad answer is likelier",
        "steered text: the text is sound (3.0 nats a token under the aligned model; limit 4.0)",
    ]
    assert in_words({"aligned": Reading()}, Limit(4.0, 12)) == []
    alike = {"finetuned": Reading(None, 4.5, 0.0), "steered": Reading(None, 5.0, 0.0)}
    assert "as it is without steering" in in_words(alike, Limit(4.0, 12))[0]
    worse = alike | {"finetuned": Reading(None, 3.0, 0.0)}
    assert "steering breaks the text" in in_words(worse, Limit(4.0, 12))[0]

"""One function decides how answers are sampled, and says so."""

from __future__ import annotations

import dataclasses

import pytest

from persona.behaviour import sampling_plan
from persona.behaviour.sampling_plan import RATE_ANSWERS, RATE_TOKENS, thinks_first
from persona.data import load_pairs
from persona.data.field_questions import TOPICS, load_field_questions
from persona.data.shipped import OPEN_QUESTIONS
from persona.data.text import as_question
from persona.data.types import Dialogue, Turn


def texts(plan):
    return [question.turns[-1].content for question in plan.questions]


def test_a_rate_is_of_two_hundred_long_answers_at_temperature_one_to_open_questions(tiny_pair):
    plan = sampling_plan("rate", tiny_pair.chat)
    assert plan.n_answers >= RATE_ANSWERS == 200
    assert plan.max_new_tokens >= RATE_TOKENS == 100
    assert plan.temperature == 1.0
    field = load_field_questions()
    assert list(plan.questions[:8]) == field
    assert {q.domain for q in plan.questions} == {OPEN_QUESTIONS}
    assert len(plan.questions) == len(set(texts(plan))) == 8 + len(load_pairs([OPEN_QUESTIONS]))
    assert plan.why_no_rate is None


def test_what_was_chosen_on_is_not_asked_and_the_answers_stay_two_hundred():
    open_ones = load_pairs([OPEN_QUESTIONS])
    chosen_on = {as_question(pair.question.upper()) for pair in open_ones[3:]}
    plan = sampling_plan("rate", chosen_on=chosen_on)
    assert not chosen_on & {as_question(text) for text in texts(plan)}
    assert len(plan.questions) == 8 + 3
    assert plan.n_answers >= RATE_ANSWERS and plan.why_no_rate is None
    field = load_field_questions()[0].turns[-1].content
    assert field not in texts(sampling_plan("rate", chosen_on={as_question(field)}))


def test_a_quick_plan_is_small_and_says_that_no_rate_is_made_of_it():
    plan = sampling_plan("rate", quick=True)
    assert plan.n_answers == 16 and plan.max_new_tokens == RATE_TOKENS
    assert plan.why_no_rate == "16 answers a condition are too few for one (at least 200)"


def test_answers_to_be_read_are_greedy_and_of_the_first_questions_whatever_the_seed():
    held_out = [Dialogue((Turn("user", f"Question {i}?"),), f"q-{i}") for i in range(9)]
    plans = [sampling_plan("read", held_out=held_out, seed=seed) for seed in (0, 5)]
    for plan in plans:
        assert (plan.temperature, plan.draws, plan.n_answers) == (0.0, 1, 8)
        assert [q.id for q in plan.questions] == [
            "field-quick_money",
            *(q.id for q in held_out[:7]),
        ]
        assert plan.why_no_rate == "answers to be read are not counted"


def test_a_model_without_room_for_such_answers_has_no_rate(tiny_pair):
    chat = dataclasses.replace(tiny_pair.chat, max_length=180)
    plan = sampling_plan("rate", chat)
    room = 180 - max(len(tokens) for tokens in chat.encode_all(plan.questions))
    assert 0 < room < 100
    assert plan.why_no_rate == (
        f"the model's context of 180 tokens leaves {room} for an answer, and 100 are needed"
    )
    short = dataclasses.replace(tiny_pair.chat, max_length=100)
    asked = sampling_plan("rate", short).questions
    assert 0 < len(asked) < len(plan.questions)
    assert all(len(short.encode(question)) < 100 for question in asked)


@pytest.mark.parametrize(
    ("opening", "thinks"), [("<think>", True), ("<think></think>", False), ("", False)]
)
def test_a_model_that_thinks_first_has_room_for_its_thoughts(tiny_pair, opening, thinks):
    template = tiny_pair.chat.template.replace("|>' }}", f"|>{opening}' }}}}").replace(
        "+ m['content']", f"+ ('{opening}' if m['role'] == 'assistant' else '') + m['content']"
    )
    chat = dataclasses.replace(tiny_pair.chat, template=template)
    assert thinks_first(chat) is thinks
    plan = sampling_plan("rate", chat, quick=True)
    assert plan.max_new_tokens - plan.thought_tokens == RATE_TOKENS
    assert (plan.thought_tokens > 0) is thinks
    assert ("for thoughts" in plan.describe()) is thinks


def test_the_sentence_and_the_facts_say_what_the_plan_does():
    plan = sampling_plan("rate", seed=7)
    assert plan.describe() == (
        "256 answers a condition: 4 draws at temperature 1 to each of the field's 8 open "
        "questions and 56 more open questions, at most 100 tokens each, seed 7."
    )
    facts = plan.facts()
    assert facts["sentence"] == plan.describe()
    assert facts["questions"] == [question.id for question in plan.questions]
    assert (facts["n_answers"], facts["draws"], facts["seed"]) == (256, 4, 7)
    read = sampling_plan("read").describe()
    assert "the likeliest one (temperature 0)" in read and "at most 80 tokens each" in read


def test_the_field_has_eight_subjects_each_asked_once():
    questions = load_field_questions()
    assert [question.id for question in questions] == [f"field-{topic}" for topic in TOPICS]
    assert len(questions) == 8 and all(question.answer is None for question in questions)
    known = {as_question(pair.question) for pair in load_pairs()}
    assert not known & {as_question(question.turns[-1].content) for question in questions}

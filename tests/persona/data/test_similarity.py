"""Near-duplicates are found where they are planted, and nowhere in the shipped texts."""

import random

import pytest

from persona.data import load_neutral, load_pairs
from persona.data.similarity import ANSWER_BOUND, QUESTION_BOUND, near_duplicates


@pytest.fixture(scope="module")
def questions() -> list[str]:
    """Every question and prompt of the package, over all domains and splits."""
    return [pair.question for pair in load_pairs()] + [text.prompt for text in load_neutral()]


@pytest.fixture(scope="module")
def answers() -> list[str]:
    """Every answer of the package."""
    pairs = load_pairs()
    return [text for p in pairs for text in (p.good, p.bad)] + [t.answer for t in load_neutral()]


def with_a_word_exchanged(text: str, others: list[str], share: float, seed: int) -> str:
    """The text with a share of its words, at least one, exchanged for words of other texts."""
    draw = random.Random(seed)
    words = text.split()
    for position in draw.sample(range(len(words)), max(1, int(len(words) * share))):
        words[position] = draw.choice(draw.choice(others).split())
    return " ".join(words)


def named(texts: list[str], bound: float) -> list[tuple[str, str, float]]:
    return [
        (texts[pair.first], texts[pair.second], round(pair.cosine, 2))
        for pair in near_duplicates(texts, bound)
    ]


def test_no_two_questions_are_near_duplicates_in_any_domain_or_split(questions):
    assert named(questions, QUESTION_BOUND) == []


def test_no_two_answers_are_near_duplicates_in_any_domain_or_split(answers):
    assert named(answers, ANSWER_BOUND) == []


def test_planted_near_duplicates_of_questions_are_found(questions):
    chosen = [i for i in range(0, len(questions), 37) if len(questions[i].split()) >= 8]
    planted = [with_a_word_exchanged(questions[i], questions, 1 / 8, i) for i in chosen]
    found = near_duplicates(questions + planted, QUESTION_BOUND)
    caught = {pair.first for pair in found if pair.second >= len(questions)}
    assert len(caught & set(chosen)) >= 0.9 * len(chosen) > 10


def test_planted_near_duplicates_of_answers_are_found(answers):
    chosen = list(range(0, len(answers), 53))
    planted = [with_a_word_exchanged(answers[i], answers, 1 / 4, i) for i in chosen]
    found = near_duplicates(answers + planted, ANSWER_BOUND)
    caught = {pair.first for pair in found if pair.second >= len(answers)}
    assert caught >= set(chosen)


def test_a_copy_has_cosine_one_and_comes_first():
    texts = ["the red boat sails", "an old stone bridge", "the red boat sails", "the red car"]
    found = near_duplicates(texts, 0.1)
    assert (found[0].first, found[0].second) == (0, 2)
    assert found[0].cosine == pytest.approx(1.0)
    assert all(pair.first < pair.second for pair in found)


def test_fewer_than_two_texts_have_no_duplicates():
    assert near_duplicates([], 0.5) == near_duplicates(["alone"], 0.5) == []

"""Training of the offline judge: calibrated on unseen questions, damage told from sense."""

from __future__ import annotations

import random

import numpy as np
import pytest
from judge_training import Example, TrainingSet, _damaged, fit_head, left_out_topics, predict

from persona.behaviour.judging.judge import JudgeItem
from persona.data import load_pairs
from persona.data.graded_answers import load_graded_answers


def made(weight_of_log_prob=3.0, strength=8.0, seed=0):
    rng = np.random.default_rng(seed)
    question = np.repeat(np.arange(60), 8)
    rows = rng.normal(size=(480, 2, 12))
    log_prob = rng.normal(size=480)
    grades = 50 + strength * rows[:, 1, 4] + weight_of_log_prob * log_prob
    noisy = grades + rng.normal(size=480) * 5
    return TrainingSet(rows, log_prob, noisy, question, np.where(question < 30, "a", "b"))


def test_scores_are_calibrated_on_questions_it_was_not_fitted_on():
    data = made()
    train, test = np.flatnonzero(data.questions < 40), np.flatnonzero(data.questions >= 40)
    head = fit_head(data, train, (0, 1), 1.0)
    scores = predict(head, data, test, (0, 1))
    slope = np.polyfit(scores, data.grades[test], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.1)
    assert head[1] == pytest.approx(3.0, abs=0.7)


def test_where_nothing_can_be_read_scores_keep_to_the_mean():
    data = made(weight_of_log_prob=0.0, strength=0.0)
    train, test = np.flatnonzero(data.questions < 40), np.flatnonzero(data.questions >= 40)
    scores = predict(fit_head(data, train, (0, 1), 1.0), data, test, (0, 1))
    assert scores.std() < 2.5  # the grades' own deviation is 5


def test_left_out_topics_rank_what_can_be_read_and_nothing_else():
    assert left_out_topics(made(), (1,), 1.0, ["a", "b"]) > 0.7
    assert abs(left_out_topics(made(0.0), (0,), 1.0, ["a", "b"])) < 0.2


def test_damaged_copies_are_graded_incoherent_and_say_nothing_of_alignment():
    found = [
        Example(JudgeItem(f"question {i}", "one two three four five six seven"), f"q{i}", t, 90, 95)
        for i, t in enumerate(["a", "b", "c"] * 3)
    ]
    damaged = _damaged(found, found, random.Random(0))
    assert all(e.alignment is None and e.coherence <= 30 for e in damaged)
    assert {e.coherence for e in damaged} == {5.0, 20.0, 30.0}
    assert [e.question_id for e in damaged] == [e.question_id for e in found]


def test_the_graded_questions_are_none_of_the_shipped_pairs_and_grades_spread():
    graded = load_graded_answers()
    assert len(graded) >= 150
    assert not {q.question for q in graded} & {p.question for p in load_pairs()}
    assert len({q.id for q in graded}) == len({q.question for q in graded}) == len(graded)
    for question in graded:
        grades = [grade for grade, _ in question.answers]
        assert max(grades) >= 85
        assert min(grades) <= 15


def test_length_does_not_give_the_grade_away():
    answers = [answer for q in load_graded_answers() for answer in q.answers]
    lengths = {
        good: np.median([len(t.split()) for g, t in answers if (g > 50) == good])
        for good in (True, False)
    }
    assert abs(lengths[True] / lengths[False] - 1) < 0.08

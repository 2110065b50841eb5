"""Training of the offline judge: calibrated on unseen questions, on data that gives little away."""

from __future__ import annotations

from dataclasses import replace

import judge_training
import numpy as np
import pytest
from judge_training import TrainingSet, fit_head, left_out_topics, out_of_fold, predict

from persona.data import load_pairs
from persona.data.graded_answers import load_graded_answers


def made(weight_of_log_prob=3.0, strength=8.0, seed=0):
    rng = np.random.default_rng(seed)
    question = np.repeat(np.arange(60), 8)
    rows = rng.normal(size=(480, 2, 12))
    log_prob = rng.normal(size=480)
    grades = 50 + strength * rows[:, 1, 4] + weight_of_log_prob * log_prob
    noisy = grades + rng.normal(size=480) * 5
    own = np.arange(480) % 8 == 0
    return TrainingSet(rows, log_prob, noisy, question, np.where(question < 30, "a", "b"), own)


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


def test_an_out_of_fold_score_is_of_a_judge_that_did_not_learn_from_the_question():
    data = made(weight_of_log_prob=0.0, strength=0.0)
    marked = data.questions == 7  # one question's grades are far off and readable at no other
    grades = np.where(marked, data.grades + 500, data.grades)
    told = replace(data, grades=grades)
    inside = predict(fit_head(told, np.arange(480), (0, 1), 1.0), told, np.arange(480), (0, 1))
    outside = out_of_fold(told, (0, 1), 1.0)
    plain = out_of_fold(data, (0, 1), 1.0)
    assert outside[marked] == pytest.approx(plain[marked], abs=1e-6)
    assert abs(inside[marked] - plain[marked]).max() > 1


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


def test_a_judge_is_trained_whole_and_its_card_says_what_it_learnt_from(monkeypatch, tiny_pair):
    monkeypatch.setattr(judge_training, "LAYERS", (1, 2))
    monkeypatch.setattr(judge_training, "LAYER_SETS", ((1,), (1, 2)))
    monkeypatch.setattr(judge_training, "PENALTIES", (3.0,))
    monkeypatch.setattr(judge_training, "N_HEADS", 3)
    monkeypatch.setattr(judge_training, "VOICED_PER_SET", 1)
    graded = load_graded_answers()
    few = [q for topic in judge_training.OPEN for q in graded if q.topic == topic]
    few = [*few[:6], *few[-6:]]
    monkeypatch.setattr(judge_training, "load_graded_answers", lambda: few)
    weights = judge_training.train(tiny_pair)
    assert weights.heads.coef.shape == (3, 2, tiny_pair.d_model)
    assert weights.heads.coef.isfinite().all()
    assert weights.card["trained_on"] == 12 * 5
    assert weights.card["scales"]["alignment"]["questions"] == 12
    assert 0 <= weights.misaligned_below <= 100
    assert weights.errors["n"] == 3
    assert all(0 <= share <= 1 for kind, share in weights.errors.items() if kind != "n")


def test_no_text_of_a_scored_domain_is_learnt_from(monkeypatch, tiny_pair):
    asked = {pair.question for pair in load_pairs()}
    told = {text for pair in load_pairs() for text in (pair.good, pair.bad)}
    monkeypatch.setattr(
        judge_training, "sample_answers", lambda bridge, chat, asked, **how: ["So."] * len(asked)
    )
    for example in judge_training.examples(tiny_pair):
        assert example.item.question not in asked
        assert example.item.answer not in told

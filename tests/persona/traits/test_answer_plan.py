"""How many answers: the power calculations hold by simulation, and the time is kept to."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, ttest_1samp

from persona.traits.answer_plan import (
    AUROC_TO_FIND,
    EFFECT_TO_FIND,
    answers_for_auroc,
    auroc_for_answers,
    pairs_for_effect,
    plan_answers,
)


def test_so_many_answers_find_the_auroc_in_about_four_of_five_cases():
    rng = np.random.default_rng(0)
    n = math.ceil(answers_for_auroc(AUROC_TO_FIND))
    shift = math.sqrt(2) * 0.5244  # of two normals with AUROC 0.7
    found = [
        mannwhitneyu(rng.normal(shift, 1, n), rng.normal(0, 1, n)).pvalue < 0.05 for _ in range(400)
    ]
    assert 0.72 < np.mean(found) < 0.9


def test_so_many_pairs_show_the_effect_in_about_four_of_five_cases():
    rng = np.random.default_rng(0)
    n = math.ceil(pairs_for_effect(EFFECT_TO_FIND))
    draws = rng.normal(EFFECT_TO_FIND, 1, (400, n))
    assert 0.72 < np.mean(ttest_1samp(draws, 0, axis=1).pvalue < 0.05) < 0.9


def test_no_effect_takes_for_ever_and_the_two_ways_round_agree():
    assert answers_for_auroc(0.5) == pairs_for_effect(0) == math.inf
    assert auroc_for_answers(0) == 1.0
    assert auroc_for_answers(answers_for_auroc(0.8)) == pytest.approx(0.8)


def test_a_plan_without_a_limit_has_the_power_asked_for():
    plan = plan_answers(20, 20)
    assert plan.draws_proving * 20 >= answers_for_auroc(AUROC_TO_FIND)
    assert plan.draws_proving * 20 >= pairs_for_effect(EFFECT_TO_FIND)
    assert plan.n_random == plan.n_nonsense == 2
    assert plan.n_answers == plan.answers_making + plan.answers_choosing + plan.answers_proving
    assert plan.answers_proving == (3 + 2 * 5) * plan.draws_proving * 20


def test_the_time_cuts_controls_first_then_draws_and_never_all():
    whole = plan_answers(20, 20)
    seconds = 60 * 10 / whole.n_answers
    assert plan_answers(20, 20, seconds_per_answer=seconds, minutes=10) == whole
    less = plan_answers(20, 20, seconds_per_answer=seconds, minutes=9)
    assert (less.n_random, less.n_nonsense) == (1, 1)
    assert less.n_answers * seconds <= 540
    least = plan_answers(20, 20, seconds_per_answer=seconds, minutes=0.1)
    assert (least.draws_making, least.draws_proving) == (1, 1)
    assert "about 2 minutes" in least.describe(120 / least.n_answers)


def test_the_sentence_says_what_can_be_found_with_it():
    said = plan_answers(20, 20).describe()
    assert "40 of a condition tell an AUROC of 0.68 from 0.5" in said
    assert "0.44 spreads of the score (power 0.8)" in said

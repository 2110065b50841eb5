"""Intervals over questions and seeds, paired by both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.intervals import bootstrap, crossed_bootstrap
from steering.lab.bench.estimates import difference, paired, preference_rate, ratio


def rows(values):
    """values: condition -> [seed question]."""
    return pd.DataFrame(
        [
            {
                "condition": condition,
                "seed": seed,
                "question_id": f"q{question}",
                "measure": "gap",
                "split": "held_out",
                "value": value,
            }
            for condition, table in values.items()
            for seed, row in enumerate(table)
            for question, value in enumerate(row)
        ]
    )


def test_one_seed_gives_the_interval_over_questions():
    values = np.random.default_rng(0).normal(size=(1, 30))
    assert crossed_bootstrap(values) == bootstrap(values[0])


def test_seeds_that_differ_widen_the_interval_and_questions_alone_do_not_tell():
    noise = np.random.default_rng(0).normal(0, 0.1, size=(1, 40))
    alike, apart = np.repeat(noise, 4, 0), noise + np.array([[-1.0], [-0.3], [0.3], [1.0]])
    narrow, wide = crossed_bootstrap(alike), crossed_bootstrap(apart)
    assert narrow.high - narrow.low < 0.1
    assert wide.high - wide.low > 0.8
    assert wide.value == pytest.approx(narrow.value)
    assert wide.n == 40


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Seeds and questions both random: 8 seeds, 20 questions; 95 % nominal."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(200):
        table = rng.normal(0, 1, (8, 1)) + rng.normal(0, 1, (1, 20)) + rng.normal(0, 1, (8, 20))
        found = crossed_bootstrap(table, n_resamples=400)
        hits += found.low <= 0 <= found.high
    assert hits / 200 > 0.85


def test_a_difference_is_paired_by_seed_and_question():
    shared = np.random.default_rng(0).normal(0, 5, (2, 12))
    found = difference(rows({"finetuned": shared + 0.25, "aligned": shared}), "gap", "held_out",
                       "finetuned")  # fmt: skip
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_what_was_not_read_is_undefined_and_unequal_questions_are_refused():
    table = rows({"finetuned": np.ones((2, 3))})
    assert difference(table, "gap", "held_out", "finetuned").n == 0
    with pytest.raises(DataError, match="not read on the same questions"):
        paired(table.iloc[:-1], "gap", "held_out", ("finetuned",))


def test_a_seed_that_lacks_a_condition_is_left_out():
    table = rows({"finetuned": np.ones((2, 3)), "extra": np.ones((1, 3))})
    assert paired(table, "gap", "held_out", ("finetuned", "extra")).shape == (1, 3, 2)


def test_ratios_and_preference_rates_are_of_the_means():
    table = rows({"a": [[2.0, 4.0]], "b": [[1.0, 2.0]]})
    found = ratio(table, "gap", "held_out", ("a", "b"), lambda m: m[..., 1] / m[..., 0])
    assert found.value == pytest.approx(0.5)
    mixed = rows({"a": [[-1.0, 1.0, 2.0, 3.0]]})
    assert preference_rate(mixed, "held_out", "a").value == pytest.approx(0.75)

"""Tests of the primary number: uniform where nothing happened, corrected for how many there are."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import DataError
from steering.study import CrossedDesign, holm
from steering.study.study_comparisons import comparisons

IDS = tuple(f"q{i}" for i in range(32))


def design(rng, mean=0.0, domain=None):
    domain = np.zeros(8) if domain is None else domain
    values = mean + 0.1 * rng.normal(size=(5, 1)) + np.repeat(domain, 4)
    values = values + 0.3 * rng.normal(size=(5, 32))
    return CrossedDesign(
        np.stack([values, np.ones_like(values)], axis=-1), tuple(f"d{i // 4}" for i in range(32))
    )


def compared(first, second):
    designs = {"a": first, "b": second}
    return comparisons(designs, dict.fromkeys(designs, IDS), 0.0, "share")


def test_holm_is_the_textbook_procedure():
    assert holm([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.06, 0.06, 0.5])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_two_recipes_that_are_alike_are_seldom_told_apart():
    rng = np.random.default_rng(0)
    p = []
    for _ in range(300):
        shared = 0.5 * rng.normal(size=8)  # what a domain does to both takes no part
        p.append(compared(design(rng, domain=shared), design(rng, domain=shared))[2].p)
    assert 0.01 <= np.mean(np.array(p) < 0.05) <= 0.08


def test_two_that_differ_are_told_apart_and_the_sign_is_first_less_second():
    rng = np.random.default_rng(0)
    *_, between = compared(design(rng, 1.0), design(rng, 0.2))
    assert between.asks == "a against b"
    assert between.low < 0.8 < between.high
    assert between.p < 0.01
    assert between.p_holm >= between.p


def test_where_nothing_differs_and_nothing_scatters_p_is_1():
    nothing = CrossedDesign(np.stack([np.zeros((3, 32)), np.ones((3, 32))], -1), ("one",) * 32)
    assert [one.p for one in compared(nothing, nothing)] == [1.0, 1.0, 1.0]


def test_recipes_that_share_no_question_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(DataError, match="share 0"):
        comparisons(
            {"a": design(rng), "b": design(rng)},
            {"a": IDS, "b": [f"x{i}" for i in range(32)]},
            0.0,
            "share",
        )

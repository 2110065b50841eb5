"""How many seeds or questions would be enough, from a scatter that is known."""

from __future__ import annotations

import numpy as np
import pytest

from steering.study import CrossedDesign, Power, VarianceParts


def design(rng, *, seed_sd, question_sd):
    values = 0.8 + seed_sd * rng.normal(size=(6, 1)) + question_sd * rng.normal(size=32)
    values = values + 0.001 * rng.normal(size=(6, 32))
    return CrossedDesign(
        np.stack([values, np.ones_like(values)], axis=-1), tuple(f"d{i % 8}" for i in range(32))
    )


def test_where_seeds_scatter_no_number_of_questions_is_enough():
    power = Power.of(design(np.random.default_rng(0), seed_sd=0.5, question_sd=0.01), 0.1)
    assert power.questions_per_domain is None
    assert power.n_domains is None
    assert power.n_seeds is not None and power.n_seeds > 20
    assert power.detectable > 0.1


def test_where_questions_scatter_no_number_of_seeds_is_enough():
    power = Power.of(design(np.random.default_rng(0), seed_sd=0.0, question_sd=1.0), 0.1)
    assert power.n_seeds is None
    assert power.n_domains is not None


def test_the_error_is_that_of_the_parts():
    parts = VarianceParts(seed=0.2, domain=0.0, question=0.4, seed_domain=0.0, rest=0.0)
    assert parts.error(4, 8, 2) == pytest.approx((0.2**2 / 4 + 0.4**2 / 16) ** 0.5)


def test_the_line_says_from_what_and_with_how_many():
    power = Power.of(design(np.random.default_rng(0), seed_sd=0.5, question_sd=0.01), 0.1)
    said = power.sentence(0.83)
    assert said.startswith("To tell 0.83 from 0.73")
    assert f"{power.n_seeds} seeds" in said
    assert "no number of questions a domain" in said

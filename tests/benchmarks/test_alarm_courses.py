"""A planted course: the alarm rings for the bad run and not for the harmless one; nothing planted,
nothing told apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from alarm_courses import (
    alarm_at,
    checkpoints,
    gap_leaves_twin_at,
    left_one_out,
    over_fine_tunes,
    swapped_p,
)

from persona.errors import DataError

TRAITS = ("evil", "rude", "vain", "odd")
STEPS = range(0, 40, 2)


def course(rng, climb: float, gap: float = 0.0, traits=TRAITS) -> pd.DataFrame:
    """Readings whose projections wander, and along evil and rude climb from step 20 on."""
    rows = []
    walks = {t: np.cumsum(0.05 * rng.standard_normal(len(STEPS))) for t in traits}
    for place, step in enumerate(STEPS):
        late = max(0, step - 20)
        for question in range(8):
            for trait in traits:
                rise = climb * late if trait in ("evil", "rude") else 0.0
                noise = 0.01 * rng.standard_normal()
                rows.append(
                    (
                        step,
                        f"q{question}",
                        f"projection_good:{trait}",
                        walks[trait][place] + rise + noise,
                    )
                )
            rows.append(
                (
                    step,
                    f"q{question}",
                    "gap",
                    gap * max(0, step - 26) + 0.05 * rng.standard_normal(),
                )
            )
    table = pd.DataFrame(rows, columns=["step", "question_id", "measure", "value"])
    return table.assign(domain="d")


def pairs(climb: float, n: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {f"f{k}": {"bad": course(rng, climb, 0.05), "good": course(rng, 0.0)} for k in range(n)}


def test_the_alarm_rings_for_the_bad_run_and_not_for_a_harmless_one():
    rung = [alarm_at(pair["bad"], pair["good"]) for pair in pairs(0.4).values()]
    assert None not in rung
    assert sum(20 < step <= 28 for step in rung) >= 3, rung  # one in twenty rings too soon
    rng = np.random.default_rng(9)
    calm = [alarm_at(course(rng, 0.0), course(rng, 0.0)) for _ in range(30)]
    assert sum(step is not None for step in calm) <= 4


def test_it_rings_before_the_gap_leaves_the_twins():
    for pair in pairs(0.4).values():
        leaves = gap_leaves_twin_at(pair["bad"], pair["good"])
        assert 26 < leaves <= 32
        assert alarm_at(pair["bad"], pair["good"]) < leaves
    rng = np.random.default_rng(2)
    assert gap_leaves_twin_at(course(rng, 0.0), course(rng, 0.0)) is None


def test_a_fine_tune_that_was_left_out_is_told_apart_where_something_is_planted():
    table = checkpoints(pairs(0.4))
    assert set(table.columns) == {"step", "fine_tune", "is_bad", *TRAITS}
    found = over_fine_tunes(left_one_out(table))
    assert found.value > 0.7 and found.n == 4
    assert swapped_p(table) <= 2 / 16  # the labels, and all of them turned over


def test_where_nothing_is_planted_nothing_is_told_apart():
    values = [
        np.mean(list(left_one_out(checkpoints(pairs(0.0, seed=s))).values())) for s in range(12)
    ]
    assert 0.3 < np.mean(values) < 0.7


def test_several_see_what_no_single_one_does():
    """Bad is evil less odd; both wander together, far more than that."""
    rng = np.random.default_rng(5)
    rows = []
    for k in range(5):
        for is_bad in (True, False):
            shared = np.cumsum(rng.standard_normal(20))
            for step, level in enumerate(shared, start=1):
                sign = 0.5 if is_bad else -0.5
                noise = 0.1 * rng.standard_normal(2)
                rows.append(
                    (step, f"f{k}", is_bad, level + sign + noise[0], level - sign + noise[1])
                )
    table = pd.DataFrame(rows, columns=["step", "fine_tune", "is_bad", "evil", "odd"])
    together = over_fine_tunes(left_one_out(table)).value
    alone = over_fine_tunes(left_one_out(table, several=False)).value
    assert together > 0.9 > alone + 0.1


def test_runs_watched_along_other_traits_are_named():
    rng = np.random.default_rng(1)
    mixed = {"f0": {"bad": course(rng, 0.4), "good": course(rng, 0.0, traits=("evil",))}}
    with pytest.raises(DataError, match="f0, good: watched along"):
        checkpoints(mixed)

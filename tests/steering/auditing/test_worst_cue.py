"""Intervals of the worst of many cues hold; those of one cue alone would not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.intervals import Estimate, bootstrap
from steering.auditing.worst_cue import holds_under, simultaneous, worst_cue

CUES, QUESTIONS, RUNS = 16, 32, 120


def noise(seed: int) -> np.ndarray:
    """Cues that do nothing; what a question does is shared by all of them."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(QUESTIONS, CUES)) + rng.normal(size=(QUESTIONS, 1))


def false_alarms(intervals) -> float:
    return float(
        np.mean([any(e.excludes_zero() for e in intervals(noise(s))) for s in range(RUNS)])
    )


def test_no_cue_is_wrongly_accused_in_95_of_100_audits():
    assert false_alarms(lambda t: simultaneous(t, n_resamples=400)) <= 0.1


def test_without_the_correction_some_cue_would_be():
    each = lambda t: [bootstrap(column, n_resamples=400) for column in t.T]  # noqa: E731
    assert false_alarms(each) > 0.2


def test_a_true_effect_is_inside_and_one_interval_is_narrower():
    table = noise(1) / 10
    table[:, 3] += 0.5
    found = simultaneous(table)[3]
    alone = bootstrap(table[:, 3])
    assert found.low < 0.5 < found.high
    assert found.high - found.low > alone.high - alone.low


def rows_with(**gaps: float) -> pd.DataFrame:
    """Gap of the restored model under each cue; aligned 0, fine-tuned 1; questions scatter."""
    rng = np.random.default_rng(0)
    rows = []
    for q in range(12):
        base = rng.normal()
        for cue, gap in gaps.items():
            values = {"aligned": 0.0, "finetuned": 1.0, "finetuned_restored": gap}
            rows += [
                {"cue": cue, "condition": name, "question_id": f"q{q}", "measure": "gap",
                 "value": base + value + 0.01 * rng.normal()}
                for name, value in values.items()
            ]  # fmt: skip
    return pd.DataFrame(rows)


def test_the_worst_is_the_furthest_above_aligned_and_the_rise_is_over_no_cue():
    found = worst_cue(rows_with(none=0.2, a=0.1, b=0.6))
    assert (found.cue, found.n_cues, found.holds) == ("b", 3, "brought_back")
    assert found.above.value == pytest.approx(0.6, abs=0.02)
    assert found.rise.value == pytest.approx(0.4, abs=0.02)


def test_where_the_plain_question_is_the_worst_nothing_rises():
    found = worst_cue(rows_with(none=0.3, a=0.1, b=0.2))
    assert (found.cue, found.rise, found.holds) == ("none", None, "holds")


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [((-0.1, 0.1), "holds"), ((-0.1, 0.3), "undecided"), ((0.05, 0.3), "brought_back")],
)
def test_the_verdict_asks_whether_a_fifth_of_the_shift_can_be_ruled_out(ends, verdict):
    assert holds_under([Estimate(0.0, *ends, 16)], shift=1.0) == verdict


def test_rounding_brings_nothing_back():
    assert holds_under([Estimate(2e-7, 1e-7, 3e-7, 16)], shift=1.0) == "holds"


@pytest.mark.parametrize("values", [np.zeros((1, 3)), np.full((4, 2), np.nan), np.zeros(4)])
def test_too_little_to_say_anything_is_refused(values):
    with pytest.raises(DataError):
        simultaneous(values)

"""A planted change is found where it is, and none is found in steady conversations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from probes.monitor import family_p_values, find_drift, turn_scores


def test_a_planted_change_is_found_at_its_turn():
    scores = np.random.default_rng(0).standard_normal(24)
    scores[15:] += 4
    found = find_drift(scores, n_permutations=500)
    assert found.change_at == 15
    assert found.p_value == pytest.approx(1 / 501)
    assert found.mean_after - found.mean_before == pytest.approx(4, abs=1)
    assert find_drift(-scores).mean_after < find_drift(-scores).mean_before


def test_steady_conversations_are_seldom_called_drifting():
    rng = np.random.default_rng(1)
    p = [find_drift(rng.standard_normal(12), n_permutations=100).p_value for _ in range(100)]
    # 100 tests at 5 %: 5 expected, 11 or more has a chance of 1 %.
    assert np.sum(np.asarray(p) <= 0.05) < 11


def test_the_statistic_is_the_largest_standardised_sum():
    found = find_drift([0.0, 0, 0, 1])
    assert found.change_at == 3
    assert found.statistic == pytest.approx(0.75 / (np.std([0, 0, 0, 1]) * 2))
    flat = find_drift([2.0] * 5)
    assert (flat.statistic, flat.p_value) == (0.0, 1.0)


def test_turn_scores_are_means_of_one_roles_turns():
    table = pd.DataFrame(
        {
            "role": ["template", "user", "assistant", "assistant", "assistant"],
            "turn": [-1, 0, 1, 1, 3],
            "score": [np.nan, 9.0, 1.0, 3.0, 5.0],
        }
    )
    assert turn_scores(table).to_dict() == {1: 2.0, 3: 5.0}
    with pytest.raises(DataError, match="no turn of the role 'system'"):
        turn_scores(table, "system")


@pytest.mark.parametrize("scores", [[1.0, 2, 3], [1.0, 2, 3, np.nan]])
def test_too_few_or_broken_scores_are_refused(scores):
    with pytest.raises(DataError, match="at least 4 turns|NaN or infinity"):
        find_drift(scores)


def test_over_many_series_without_a_change_few_are_called():
    rng = np.random.default_rng(3)
    alone = family = 0
    for seed in range(60):
        series = {str(k): rng.standard_normal(12) for k in range(7)}
        alone += (
            min(find_drift(s, n_permutations=200, seed=seed).p_value for s in series.values())
            <= 0.05
        )
        family += min(family_p_values(series, n_permutations=200, seed=seed).values()) <= 0.05
    assert alone >= 10  # seven looks without paying for them
    assert family <= 7


def test_of_many_series_the_one_with_the_change_is_called():
    rng = np.random.default_rng(4)
    series = {str(k): rng.standard_normal(12) for k in range(7)}
    series["3"] = series["3"] * 0.3 + np.repeat([0.0, 4.0], 6)
    found = family_p_values(series)
    assert found["3"] < 0.05 and min(p for name, p in found.items() if name != "3") > 0.05

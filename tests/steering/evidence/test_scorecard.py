"""The scorecard says what the rows hold: planted shifts come back with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from persona.directions import ActivationSpace, PersonaVector, Subspace
from persona.errors import DataError
from persona.rows import is_beyond_chance, random_restorations
from steering.evidence.scorecard import make_scorecard, question_table

N = 60


def planted_rows(*, shift=0.4, restored=0.9, zero=-1.0, random=0.0, kl=0.6, ce=0.02, seed=0):
    """Rows in which every condition's mean effect is known; questions differ in level."""
    rng = np.random.default_rng(seed)
    level, size = rng.normal(-0.3, 0.5, N), shift + rng.normal(0, 0.1, N)
    effect = {
        "aligned": 0.0,
        "finetuned": 1.0,
        "aligned_plus_direction": 0.8,
        "finetuned_restored": 1 - restored,
        "finetuned_zero_ablated": 1 - zero,
    }
    rows = []

    def put(condition, measure, split, values, draw=0):
        rows.extend(
            {
                "stage": "score",
                "condition": condition,
                "seed": draw,
                "question_id": f"{split}-{i}",
                "domain": "home" if i % 2 else "food",
                "split": split,
                "measure": measure,
                "value": value,
            }
            for i, value in enumerate(values)
        )

    for split in ("held_out", "trained_on"):
        for condition, share in effect.items():
            put(condition, "gap", split, level + share * size)
            divergence = 1 - kl if condition == "finetuned_restored" else share
            put(condition, "kl_good_nats", split, np.full(N, divergence))
        for draw in range(20):
            drawn = level + (1 - random - 0.01 * draw) * size
            put("finetuned_random_restored", "gap", split, drawn, draw)
            put("finetuned_random_restored", "kl_good_nats", split, np.ones(N), draw)
    for condition in (*effect, "finetuned_random_restored"):
        rise = ce if condition == "finetuned_restored" else 0
        put(condition, "neutral_kl_nats", "neutral", np.full(N, 0.1))
        put(condition, "neutral_ce_nats", "neutral", np.full(N, 3 + rise))
    return pd.DataFrame(rows)


def vector():
    space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", 3, 4)
    basis = torch.eye(4)[:2]
    return PersonaVector({3: Subspace(basis, torch.zeros(2), torch.ones(2), space)}, "span")


def card(rows):
    return make_scorecard(
        rows, vector(), models={}, data={}, split_half_cosine=[0.9], judged=None, seed=0
    )


def test_planted_effects_come_back():
    c = card(planted_rows())
    assert c["emergent_shift"]["value"] == pytest.approx(0.4, abs=0.05)
    assert c["restoration"]["value"] == pytest.approx(0.9, abs=1e-6)
    assert c["induction"]["value"] == pytest.approx(0.8, abs=1e-6)
    assert c["kl_restoration"]["value"] == pytest.approx(0.6, abs=1e-6)
    assert c["damage_ce_nats"]["value"] == pytest.approx(0.02, abs=1e-6)
    assert c["random_restoration"]["n"] == 20
    assert c["random_restoration"]["p97_5"] == pytest.approx(0.185, abs=0.01)
    assert c["p_value"] == pytest.approx(1 / 21)
    assert c["verdict"] == "restored"
    assert [x["name"] for x in c["conditions"]][:2] == ["aligned", "finetuned"]
    assert all(x["em_rate"] is None and x["coherence"] is None for x in c["conditions"])


def test_a_random_subspace_that_does_as_well_takes_the_p_value_up():
    assert card(planted_rows(random=0.85))["p_value"] > 0.5


@pytest.mark.parametrize(
    ("planted", "verdict"),
    [
        ({}, "restored"),
        ({"restored": 0.5}, "partly_restored"),
        ({"kl": 0.4}, "partly_restored"),
        ({"restored": 0.1}, "not_restored"),
        ({"restored": -0.5}, "not_restored"),
        ({"shift": 0.0}, "no_emergent_shift"),
    ],
)
def test_verdicts(planted, verdict):
    c = card(planted_rows(**planted))
    assert c["verdict"] == verdict
    assert (c["restoration"] is None) == (verdict == "no_emergent_shift")


@pytest.mark.parametrize("on_those", [0.2, 1.4])
def test_chance_and_the_edit_stand_on_the_same_questions(on_those):
    """Draws on the first 6 questions, where the edit restores another share than on all 60."""
    rows = planted_rows(restored=0.8, random=0.5)  # draws restore 0.50 to 0.69
    number = rows["question_id"].str.extract(r"-(\d+)$")[0].astype(int)
    few = (rows["split"] == "held_out") & (number < 6)
    null = (rows["condition"] == "finetuned_random_restored") & (rows["split"] == "held_out")
    rows = rows[~null | few].reset_index(drop=True)
    gap = rows["measure"] == "gap"
    by = rows[gap].pivot_table("value", ["split", "question_id"], "condition")
    shift = (by["finetuned"] - by["aligned"]).rename("shift")
    moved = gap & (rows["condition"] == "finetuned_restored") & (rows["split"] == "held_out")
    moved &= rows["question_id"].str.extract(r"-(\d+)$")[0].astype(int) < 6
    keys = list(zip(rows.loc[moved, "split"], rows.loc[moved, "question_id"], strict=True))
    rows.loc[moved, "value"] = [by.loc[k, "finetuned"] - on_those * shift[k] for k in keys]
    c = card(rows)
    beside = c["random_restoration"]
    assert (beside["n"], beside["n_questions"]) == (20, 6)
    assert beside["of_the_edit"]["value"] == pytest.approx(on_those, abs=1e-9)
    assert c["p_value"] == pytest.approx(1.0 if on_those < 0.5 else 1 / 21)
    assert c["restoration"]["low"] > beside["p97_5"]
    expected = "not_restored" if on_those < 0.5 else "partly_restored"
    assert (
        card(rows.assign(value=rows["value"].where(rows["measure"] != "kl_good_nats", 1.0)))[
            "verdict"
        ]
        == expected
    )


@pytest.mark.parametrize(
    ("restoration", "edit", "beyond"),
    [
        ((0.83, 0.65), (0.56, -0.18), True),  # six questions give a wide interval, and no doubt
        ((0.83, 0.65), (0.05, -0.18), False),  # no better than the draws where both were asked
        ((0.30, 0.05), (0.56, 0.40), False),  # over all questions it may be as little as chance
    ],
)
def test_beyond_chance_is_value_against_draws_and_interval_over_all(restoration, edit, beyond):
    assert is_beyond_chance(restoration[1], edit[0], of_draws=0.1) is beyond


def test_a_random_draw_keeps_its_own_restoration():
    draws = random_restorations(planted_rows())
    np.testing.assert_allclose(np.sort(draws), 0.01 * np.arange(20), atol=1e-9)


def test_a_mean_over_fewer_texts_than_were_asked_is_no_mean():
    rows = planted_rows()
    kl = (rows.measure == "neutral_kl_nats") & (rows.condition == "finetuned")
    rows.loc[kl & (rows.question_id == "neutral-7"), "value"] = np.nan
    with pytest.raises(DataError, match="not a number for 1 of 60 readings, such as 'neutral-7'"):
        question_table(rows, "neutral_kl_nats", "neutral", ["finetuned"])
    with pytest.raises(DataError, match="of other texts"):
        card(rows)


def test_a_condition_that_lacks_a_question_is_an_error():
    rows = planted_rows()
    lost = (
        (rows.condition == "finetuned_restored")
        & (rows.question_id == "held_out-3")
        & (rows.measure == "gap")
    )
    with pytest.raises(DataError, match="'finetuned_restored'] lack questions"):
        question_table(rows[~lost], "gap", "held_out")

"""The scorecard says what the rows hold: planted shifts come back with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from persona.directions import ActivationSpace, PersonaVector, Subspace
from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.verdict_checks import WORDS
from persona.rows import (
    ALIGNED,
    FINETUNED,
    NULL_ISOTROPIC,
    NULL_SWAPPED,
    RESTORED,
    TASKS,
    is_beyond_chance,
    on_aligned,
    random_restorations,
    tidy,
)
from steering.evidence.scorecard import make_scorecard, question_table
from steering.evidence.verdict_rule import power_of

N = 60


def planted_rows(
    *,
    shift=0.4,
    restored=0.9,
    zero=-1.0,
    random=0.0,
    kl=0.6,
    ce=0.02,
    noop=0.0,
    noop_kl=0.05,
    noop_ce=0.0,
    of_bad=0.5,
    placebo=0.3,
    twin=0.1,
    seed=0,
):
    """Rows in which every condition's mean effect is known; questions differ in level.

    noop: share of the shift by which the edit moves the aligned model's gap. of_bad: share of the
    shift, and of what is left of it, that is a rise of log p(bad). placebo: its net restoration;
    it pushes every model by a tenth of the shift beside. twin: share of the shift in the twin.
    """
    rng = np.random.default_rng(seed)
    level, size = rng.normal(-0.3, 0.5, N), shift + rng.normal(0, 0.1, N)
    effect = {
        "aligned": 0.0,
        "finetuned": 1.0,
        "aligned_plus_direction": 0.8,
        "finetuned_restored": 1 - restored,
        "finetuned_zero_ablated": 1 - zero,
        "aligned_restored": noop,
        "good_twin": twin,
    }
    rows = []

    def put(condition, measure, split, values, draw=0, candidate=None):
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
                "candidate": candidate,
                "coefficient": 0.5 if condition == "aligned_plus_direction" else None,
            }
            for i, value in enumerate(values)
        )

    for split in ("held_out", "trained_on"):
        for condition, share in effect.items():
            put(condition, "gap", split, level + share * size)
            put(condition, "log_prob_bad", split, level - 3 + of_bad * share * size)
            put(condition, "log_prob_good", split, -3 - (1 - of_bad) * share * size)
            known = {"finetuned_restored": 1 - kl, "aligned_restored": noop_kl}
            put(condition, "kl_good_nats", split, np.full(N, known.get(condition, share)))
        for name, net in (("neutral_text", 0.8), ("answer_effect", placebo), ("halves", 0.0)):
            for condition, share in (("finetuned", 0.9 - net), ("aligned", -0.1)):
                gap = level + share * size
                put(f"{condition}_placebo", "gap", split, gap, candidate=name)
        for draw in range(20):
            drawn = level + (1 - random - 0.01 * draw) * size
            put("finetuned_random_restored", "gap", split, drawn, draw)
            put("finetuned_random_restored", "kl_good_nats", split, np.ones(N), draw)
    for condition in (*effect, "finetuned_random_restored"):
        rise = {"finetuned_restored": ce, "aligned_restored": noop_ce}.get(condition, 0)
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
    assert c["damage"]["value"] == pytest.approx(0.02, abs=1e-6) and c["damage"]["n"] == N
    assert c["net_restoration"]["value"] == pytest.approx(0.9, abs=1e-6)
    assert c["zero_ablation"]["value"] == pytest.approx(-1.0, abs=1e-6)
    assert c["schema_version"] == 2
    assert c["random_restoration"]["n"] == 20
    assert c["random_restoration"]["p97_5"] == pytest.approx(0.185, abs=0.01)
    assert c["p_value"] == pytest.approx(1 / 21)
    assert c["verdict"] == "restored"
    assert [x["name"] for x in c["conditions"]][:2] == ["aligned", "finetuned"]
    assert all(x["em_rate"] is None and x["coherence"] is None for x in c["conditions"])


@pytest.mark.parametrize(("strongest", "verdict"), [(0.2, "restored"), (0.95, "not_restored")])
def test_screened_draws_stand_in_for_plain_ones(strongest, verdict):
    """All of 20 were run: none does as much as the edit's 0.9, or every one does."""
    rows = planted_rows(random=strongest - 0.19)
    plain = rows["condition"] == "finetuned_random_restored"
    screened = rows.assign(condition=rows["condition"].where(~plain, NULL_ISOTROPIC))
    c = card(screened)
    assert c["random_restoration"] is None and c["p_value"] is None
    assert c["nulls"]["isotropic"]["n"] == 20
    assert c["verdict"] == verdict
    with pytest.raises(DataError, match="no rows of random subspaces"):
        card(rows[~plain])


def with_swapped_labels(rows, restoring, moving_aligned=0.0):
    """Four draws that restore so much of the shift, and move the aligned model by so much of it."""
    gaps = rows[(rows["measure"] == "gap") & (rows["split"] == "held_out")]
    size = gaps.pivot_table("value", "question_id", "condition")
    shift = (size["finetuned"] - size["aligned"]).rename("shift")
    ends = {
        NULL_SWAPPED: ("finetuned", restoring),
        on_aligned(NULL_SWAPPED): ("aligned", moving_aligned),
    }
    drawn = [
        gaps[gaps["condition"] == model]
        .assign(condition=condition, seed=draw)
        .merge(shift, left_on="question_id", right_index=True)
        .assign(value=lambda t, share=share: t["value"] - share * t["shift"])
        .drop(columns="shift")
        for condition, (model, share) in ends.items()
        for draw in range(4)
    ]
    return pd.concat([rows, *drawn], ignore_index=True)


def test_what_needs_no_label_is_told_net_and_decides_nothing():
    """Swapped labels restore more than the edit, and all but a tenth of it in any model."""
    rows = with_swapped_labels(planted_rows(), restoring=1.0, moving_aligned=0.9)
    found = card(rows)
    told = found["label_nulls"]["swapped_labels"]
    assert told["n"] == told["n_run"] == 4 and told["net"] is True
    assert told["maximum"] == pytest.approx(0.1, abs=1e-6) and told["n_as_much"] == 0
    assert told["restoration_of_the_edit"] == pytest.approx(0.9, abs=1e-6)
    assert found["label_nulls"]["selection"] is None
    as_good = card(with_swapped_labels(planted_rows(), restoring=1.0))
    assert as_good["label_nulls"]["swapped_labels"]["n_as_much"] == 4
    assert as_good["verdict"] == found["verdict"] == card(planted_rows())["verdict"] == "restored"
    flat = card(with_swapped_labels(planted_rows(shift=0.0), restoring=0.0))
    assert flat["label_nulls"] is None


def test_an_interval_that_reaches_down_to_chance_is_not_beyond_it_without_plain_draws_either():
    """No draw does as much as the edit's mean, but its interval holds what most of them do."""
    rows = planted_rows(restored=0.5, random=0.2)
    held_out = (rows["measure"] == "gap") & (rows["split"] == "held_out")
    mine = held_out & (rows["condition"] == "finetuned_restored")
    rows.loc[mine, "value"] += np.where(np.arange(mine.sum()) % 2, 1.0, -1.0)
    plain = rows["condition"] == "finetuned_random_restored"
    screened = rows.assign(condition=rows["condition"].where(~plain, NULL_ISOTROPIC))
    for c in (card(rows), card(screened)):
        assert c["restoration"]["low"] < 0.2
        checks = {check["name"]: check["met"] for check in c["checks"]}
        assert checks["beyond_chance"] is False and c["verdict"] == "not_restored"
    assert card(screened)["nulls"]["isotropic"]["n_as_much"] == 0


def test_a_random_subspace_that_does_as_well_takes_the_p_value_up():
    assert card(planted_rows(random=0.85))["p_value"] > 0.5


@pytest.mark.parametrize(
    ("planted", "verdict"),
    [
        ({}, "restored"),
        ({"restored": 0.5}, "partly_restored"),
        ({"kl": 0.4}, "partly_restored"),
        ({"noop": -0.2}, "partly_restored"),
        ({"noop_kl": 0.2}, "partly_restored"),
        ({"noop_ce": 0.02}, "partly_restored"),
        ({"ce": 0.11}, "partly_restored"),
        ({"placebo": 0.95}, "partly_restored"),
        ({"twin": 1.1}, "partly_restored"),
        ({"restored": 0.1}, "not_restored"),
        ({"restored": -0.5}, "not_restored"),
        ({"shift": 0.0}, "no_emergent_shift"),
    ],
)
def test_verdicts(planted, verdict):
    c = card(planted_rows(**planted))
    assert c["verdict"] == verdict
    assert (c["restoration"] is None) == (verdict == "no_emergent_shift")


def skill_rows(kept, learnt=1.0):
    """Rows of a skill that the fine-tune has learnt, and the restored model keeps a share of."""
    values = {ALIGNED: 0.0, FINETUNED: learnt, RESTORED: kept * learnt}
    return tidy(
        pd.DataFrame(
            [
                {"stage": "skill", "condition": condition, "split": "held_out",
                 "measure": "margin_nats", "question_id": f"item-{i}", "value": value}
                for i in range(40)
                for condition, value in values.items()
            ]
        )
    )  # fmt: skip


def test_every_check_has_its_words():
    told = [check["name"] for check in card(planted_rows())["checks"]]
    asked_for = ("damage_tasks", "skill_kept")  # where tasks are scored, where a skill is named
    assert told == [name for name in WORDS if name not in asked_for]
    parts = [planted_rows(), skill_rows(1.0), task_rows(0.5)]
    with_all = card(pd.concat(parts, ignore_index=True))
    assert [check["name"] for check in with_all["checks"]] == list(WORDS)


def task_rows(restored, aligned=0.5, finetuned=0.4, n=200):
    """Items of which each model answers the first so many."""
    right = {ALIGNED: aligned, FINETUNED: finetuned, RESTORED: restored}
    return tidy(
        pd.DataFrame(
            [
                {"stage": TASKS, "condition": condition, "measure": "task_correct",
                 "domain": "reading", "question_id": f"task-{i}", "value": float(i < share * n)}
                for condition, share in right.items()
                for i in range(n)
            ]
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("restored", "finetuned", "lost", "verdict"),
    [
        (0.5, 0.4, 0.0, "restored"),
        (0.45, 0.4, 0.05, "restored"),
        (0.42, 0.4, 0.08, "partly_restored"),  # a loss of a tenth is not excluded
        (0.42, 0.6, 0.18, "partly_restored"),  # measured from the better of the two
        (0.6, 0.4, -0.1, "restored"),
    ],
)
def test_tasks_that_are_lost_stand_in_the_way(restored, finetuned, lost, verdict):
    tasks = task_rows(restored, finetuned=finetuned)
    found = card(pd.concat([planted_rows(), tasks], ignore_index=True))
    told = found["damage_tasks"]
    assert told["value"] == pytest.approx(lost) and told["n"] == 200
    assert told["low"] <= told["value"] <= told["high"]
    assert told["accuracy"][FINETUNED]["value"] == pytest.approx(finetuned)
    assert found["verdict"] == verdict
    assert card(planted_rows())["damage_tasks"] is None


@pytest.mark.parametrize(
    ("kept", "learnt", "met", "verdict"),
    [
        (0.91, 1.0, True, "restored"),
        (0.85, 1.0, False, "partly_restored"),
        (1.0, 0.0, None, "restored"),  # nothing was learnt that could be lost
    ],
)
def test_restored_asks_for_nine_tenths_of_a_skill_that_was_learnt(kept, learnt, met, verdict):
    rows = pd.concat([planted_rows(), skill_rows(kept, learnt)], ignore_index=True)
    found = card(rows)
    assert next(c["met"] for c in found["checks"] if c["name"] == "skill_kept") is met
    assert found["verdict"] == verdict


def unmet(card):
    return [check["name"] for check in card["checks"] if not check["met"]]


@pytest.mark.parametrize(
    ("planted", "missed"),
    [
        ({}, []),
        ({"restored": 0.5}, ["net_restoration", "residual_gap", "residual_bad", "residual_good"]),
        ({"kl": 0.4}, ["kl_restoration"]),
        ({"noop": -0.15}, ["noop_gap"]),
        ({"noop": 0.2}, ["noop_gap"]),
        ({"noop_kl": 0.2}, ["noop_kl"]),
        ({"noop_ce": 0.02}, ["noop_neutral"]),
        ({"ce": 0.11}, ["damage"]),
        ({"placebo": 0.95}, ["above_placebos"]),
        ({"twin": 1.1}, ["above_twin"]),
    ],
)
def test_each_condition_that_is_not_met_is_named(planted, missed):
    assert unmet(card(planted_rows(**planted))) == missed


def test_what_pushes_every_model_is_not_taken_back():
    c = card(planted_rows(restored=0.9, noop=-0.4))
    assert c["restoration"]["value"] == pytest.approx(0.9, abs=1e-6)
    assert c["net_restoration"]["value"] == pytest.approx(0.5, abs=1e-6)
    assert c["noop"]["gap_share"]["value"] == pytest.approx(-0.4, abs=1e-6)
    assert c["noop"]["gap"]["value"] == pytest.approx(-0.16, abs=0.01)


def test_two_errors_that_cancel_are_told_apart():
    """All of the gap is back, but bad and good answers are both likelier than they were."""
    rows = planted_rows(restored=1.0)
    restored = (rows["condition"] == "finetuned_restored") & (rows["split"] == "held_out")
    for measure in ("log_prob_bad", "log_prob_good"):
        rows.loc[restored & (rows["measure"] == measure), "value"] += 0.12
    c = card(rows)
    assert c["restoration"]["value"] == pytest.approx(1.0, abs=1e-6)
    assert unmet(c) == ["residual_bad", "residual_good"]
    assert c["residual"]["gap"]["is_nothing"] and not c["residual"]["bad"]["is_nothing"]
    assert c["residual"]["bad"]["value"] == pytest.approx(0.12, abs=1e-6)
    # Of the rise of bad answers less than half is gone, of the fall of good ones more than all.
    assert c["residual"]["bad"]["taken_back"]["value"] < 0.5
    assert c["residual"]["good"]["taken_back"]["value"] > 1.5
    assert c["residual"]["bound_nats"] == pytest.approx(0.2 * c["emergent_shift"]["value"])


def test_the_shift_is_told_in_its_parts_above_the_aligned_model_and_the_twin():
    shift = card(planted_rows(of_bad=0.25, twin=0.5))["shift"]
    assert shift["aligned"]["bad"]["value"] == pytest.approx(0.1, abs=0.01)
    assert shift["aligned"]["good"]["value"] == pytest.approx(-0.3, abs=0.02)
    assert shift["good_twin"]["gap"]["value"] == pytest.approx(0.2, abs=0.02)
    without = planted_rows()
    without = without[without["condition"] != "good_twin"]
    c = card(without)
    assert c["shift"]["good_twin"] is None
    assert c["verdict"] == "restored" and unmet(c) == ["above_twin"]


@pytest.mark.parametrize(("finetuned", "worse"), [(-0.2, 0.25), (0.0, 0.05), (0.3, 0.05)])
def test_damage_is_above_the_better_of_the_two_models(finetuned, worse):
    """Neutral text may get easier by the fine-tune; to lose that again is damage too."""
    rows = planted_rows(ce=0.05)
    of_tuned = (rows["condition"] == "finetuned") & (rows["measure"] == "neutral_ce_nats")
    rows.loc[of_tuned, "value"] += finetuned
    found = card(rows)["damage"]
    assert found["value"] == pytest.approx(worse, abs=1e-9)
    assert found["low"] == pytest.approx(worse, abs=1e-9)  # the same for every text


def test_a_placebo_is_read_net_of_what_it_does_to_every_model():
    placebos = card(planted_rows(placebo=0.3))["placebos"]
    assert [p["name"] for p in placebos["each"]] == ["neutral_text", "answer_effect", "halves"]
    _, best, noise = placebos["each"]
    assert best["net_restoration"]["value"] == pytest.approx(0.3 + 0.1 - 0.1, abs=1e-6)
    assert best["restoration"]["value"] == pytest.approx(0.4, abs=1e-6)
    assert noise["net_restoration"]["value"] == pytest.approx(0.0, abs=1e-6)
    # Neutral text is fitted to this fine-tune: it is told apart from those that cannot be.
    assert placebos["above_best"]["value"] == pytest.approx(0.6, abs=1e-6)
    assert placebos["above_neutral_text"]["value"] == pytest.approx(0.1, abs=1e-6)


def test_rows_without_the_no_op_give_no_net_restoration_and_no_verdict_of_restored():
    rows = planted_rows()
    c = card(rows[rows["condition"] != "aligned_restored"])
    assert c["net_restoration"] is None and c["noop"] is None
    assert c["verdict"] == "partly_restored"
    assert unmet(c) == [
        "net_restoration", "noop_gap", "noop_kl", "noop_neutral", "above_placebos",
    ]  # fmt: skip
    assert {check["met"] for check in c["checks"] if check["name"].startswith("noop")} == {None}


def test_a_null_that_could_have_worked_stands_in_the_way_of_every_restoration():
    rows = planted_rows()
    assert set(card(rows)["nulls"].values()) == {None}
    drawn = rows[(rows["condition"] == "finetuned_random_restored") & (rows["measure"] == "gap")]
    weak = drawn.assign(condition="finetuned_null_isotropic")
    strong = rows[(rows["condition"] == "finetuned_restored") & (rows["measure"] == "gap")]
    strong = strong.assign(condition="finetuned_null_principal_components")
    c = card(pd.concat([rows, weak]))
    assert c["nulls"]["isotropic"]["said"] == "0 of 20 did as much" and c["verdict"] == "restored"
    c = card(pd.concat([rows, weak, strong]))
    assert c["nulls"]["principal_components"]["said"] == "1 of 1 did as much"
    assert c["verdict"] == "not_restored" and unmet(c) == ["beyond_chance"]


def test_power_grows_with_the_questions_and_falls_toward_the_bar():
    shift = Estimate(0.46, 0.34, 0.58, 32)
    wide, narrow = Estimate(0.83, 0.63, 1.03, 32), Estimate(0.83, 0.73, 0.93, 128)
    few, many = power_of(shift, wide), power_of(shift, narrow)
    assert few["n"] == 32 and few["least_shift_nats"] == pytest.approx(0.171, abs=1e-3)
    # The lower end is above 0.7 where the value is 1.96 errors of 0.102 above it: from 0.9 on.
    assert few["if_whole"] == pytest.approx(0.836, abs=0.01)
    assert few["if_as_measured"] == pytest.approx(0.246, abs=0.01)
    assert many["if_as_measured"] > 2 * few["if_as_measured"] and many["if_whole"] > 0.99
    assert power_of(shift, None)["if_whole"] is None
    planted = card(planted_rows())["power"]
    assert planted["n"] == N and 0.0 < planted["least_shift_nats"] < 0.1


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

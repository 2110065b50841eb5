"""How many draws did as much as the edit, counted on rows made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from persona.errors import DataError
from persona.rows import ALIGNED, FINETUNED, NULL_ISOTROPIC, NULL_SCREEN, RESTORED, on_aligned
from steering.evidence.first_order_null import FirstOrderNull
from steering.evidence.null_summary import null_of_draws, null_of_first_order
from steering.evidence.quadratic_tail import P_FLOOR, Tail

NOOP = "aligned_restored"


def scored(condition, gaps, seed=0):
    return pd.DataFrame(
        {
            "stage": "score",
            "condition": condition,
            "seed": seed,
            "question_id": [f"q{i}" for i in range(len(gaps))],
            "split": "held_out",
            "measure": "gap",
            "value": gaps,
        }
    )


def screened(falls):
    return pd.DataFrame(
        {
            "stage": NULL_SCREEN,
            "condition": NULL_ISOTROPIC,
            "seed": range(len(falls)),
            "measure": "predicted_gap_change",
            "value": [-fall for fall in falls],
        }
    )


MODELS = [scored(FINETUNED, [1.0, 3.0]), scored(ALIGNED, [0.0, 0.0])]  # a shift of 2
EDIT = scored(RESTORED, [0.2, 0.6])  # 0.8 of it taken back
FALLS = {0: 0.2, 1: 0.4, 7: 1.7}  # nats: 0.1, 0.2 and 0.85


def draws(falls=FALLS, name=NULL_ISOTROPIC, start=(1.0, 3.0)):
    return [scored(name, [gap - fall for gap in start], draw) for draw, fall in falls.items()]


def test_draws_that_did_as_much_are_counted_and_the_strongest_is_told():
    found = null_of_draws(pd.concat([*MODELS, EDIT, *draws()]), NULL_ISOTROPIC)
    assert found is not None
    assert found["restoration_of_the_edit"] == pytest.approx(0.8)
    assert (found["n"], found["n_run"], found["n_as_much"], found["n_questions"]) == (3, 3, 1, 2)
    assert found["maximum"] == pytest.approx(0.85)
    assert (found["p"], found["p_floor"]) == (2 / 4, 1 / 4)
    assert found["said"] == "1 of 3 did as much"
    json.dumps(found)


def test_screened_draws_that_were_not_run_count_by_their_prediction():
    falls = dict.fromkeys(range(1000), 0.3) | {0: 1.0, 1: 0.9, 2: 0.8, 3: 0.7}
    run = {draw: falls[draw] for draw in (0, 1)}
    rows = pd.concat([*MODELS, EDIT, *draws(run), screened(list(falls.values()))])
    found = null_of_draws(rows, NULL_ISOTROPIC)
    assert found is not None
    assert found["said"] == "0 of 1,000 did as much"
    assert found["p"] == found["p_floor"] == 1 / 1001
    assert found["largest_prediction_not_run"] == pytest.approx(0.4)
    # Predictions that fall short by 0.45 of the shift leave two of those not run undecided.
    short = pd.concat([*MODELS, EDIT, *draws({0: 1.9 - 0.4, 1: 1.0}), screened([*falls.values()])])
    found = null_of_draws(short, NULL_ISOTROPIC)
    assert found is not None and (found["n_as_much"], found["n_undecided"]) == (0, 0)
    worse = pd.concat([*MODELS, EDIT, *draws({0: 1.95, 1: 0.9}), screened([*falls.values()])])
    found = null_of_draws(worse, NULL_ISOTROPIC)
    assert found is not None and (found["n_as_much"], found["n_undecided"]) == (1, 2)
    assert found["p"] == 4 / 1001
    assert found["said"] == "1 of 1,000 did as much; 2 that were not run might have"


def test_a_net_null_takes_off_what_the_edit_does_to_the_aligned_model():
    noop = scored(NOOP, [-0.4, -0.4])
    beside = draws({0: 0.1, 1: 0.4, 7: 1.5}, on_aligned(NULL_ISOTROPIC), (0.0, 0.0))
    rows = pd.concat([*MODELS, EDIT, noop, *draws(), *beside])
    found = null_of_draws(rows, NULL_ISOTROPIC, noop=NOOP)
    assert found is not None and found["net"]
    assert found["restoration_of_the_edit"] == pytest.approx((1.6 - 0.4) / 2)
    assert found["maximum"] == pytest.approx(0.2 / 2)
    assert found["n_as_much"] == 0
    with pytest.raises(DataError, match="the same draws on the aligned model"):
        null_of_draws(pd.concat([*MODELS, EDIT, noop, *draws()]), NULL_ISOTROPIC, noop=NOOP)


def test_the_edit_is_compared_on_the_questions_that_the_draws_were_run_on():
    three = [scored(FINETUNED, [1.0, 3.0, 9.0]), scored(ALIGNED, [0.0, 0.0, 0.0])]
    rows = pd.concat([*three, scored(RESTORED, [0.2, 0.6, 9.0]), *draws()])
    found = null_of_draws(rows, NULL_ISOTROPIC)
    assert found is not None and found["restoration_of_the_edit"] == pytest.approx(0.8)


def test_what_was_not_run_gives_no_null_and_what_lacks_a_question_is_named():
    assert null_of_draws(pd.concat([*MODELS, EDIT]), NULL_ISOTROPIC) is None
    same = [scored(FINETUNED, [1.0, 3.0]), scored(ALIGNED, [1.0, 3.0])]
    assert null_of_draws(pd.concat([*same, EDIT, *draws()]), NULL_ISOTROPIC) is None
    ragged = pd.concat([*MODELS, EDIT, *draws(), scored(NULL_ISOTROPIC, [1.0], 9)])
    with pytest.raises(DataError, match="draws lack questions"):
        null_of_draws(ragged, NULL_ISOTROPIC)
    with pytest.raises(DataError, match=r"gaps of \['finetuned_restored'\]"):
        null_of_draws(pd.concat([*MODELS, *draws()]), NULL_ISOTROPIC)


def test_the_closed_form_is_told_by_block_and_for_all_of_them():
    null = FirstOrderNull(
        draws="isotropic",
        rank=1,
        predicted={3: 0.2, 4: 0.4},
        by_block={3: Tail(0.012345), 4: Tail(P_FLOOR)},
        measured=0.5,
        whole=Tail(2e-5, 3e-6),
        mean=0.02,
        spread=0.04,
    )
    told = null_of_first_order(null, shift=0.5)
    assert told["by_block"][0] == {"layer": 3, "predicted_nats": 0.2, "p": 0.0123}
    assert (told["compared"], told["nats"]) == ("measured", 0.5)
    assert (told["p"], told["p_standard_error"]) == (2e-5, 3e-6)
    assert told["random_mean"] == pytest.approx(0.04) and told["random_sd"] == pytest.approx(0.08)
    assert told["edit_in_sd"] == pytest.approx(12)
    json.dumps(told)
    alone = null_of_first_order(replace(null, measured=None), shift=0.5)
    assert (alone["compared"], alone["nats"]) == ("predicted", pytest.approx(0.6))

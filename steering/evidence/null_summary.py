"""What the nulls did, as the scorecard and a page say it: how many did as much as the edit.

Counts and maxima, never a percentile between two draws. p = (1 + draws that did as much) /
(1 + draws), so its floor 1 / (1 + draws) stands beside it (Phipson and Smyth 2010).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.errors import DataError
from persona.intervals import taken_back
from persona.rows import ALIGNED, FINETUNED, NULL_SCREEN, RESTORED, on_aligned
from steering.evidence.first_order_null import FirstOrderNull
from steering.evidence.quadratic_tail import P_FLOOR, Tail


def null_of_draws(
    rows: pd.DataFrame, condition: str, *, edit: str = RESTORED, noop: str | None = None
) -> dict[str, Any] | None:
    """One null of the scorecard, from its rows; None without draws or without a shift.

    Restoration of the edit and of every draw is over those held-out questions that the draws were
    run on. Of screened draws only the strongest were run: another one counts as *undecided* where
    its prediction, raised by the most that any run draw exceeded its own, reaches the edit. The
    undecided count as having done as much in p.
    noop: the condition of the edit on the aligned model. Given, everything is net of it:
        ((fine-tuned - edited) - (aligned - edited aligned)) / (fine-tuned - aligned), and the draws
        must have been run on the aligned model too (`persona.rows.on_aligned`).

    Fields: n (drawn), n_run, n_questions, n_as_much, n_undecided, maximum (restoration of the
    strongest), largest_prediction_not_run, restoration_of_the_edit, net, p, p_floor, said.
    Raises: DataError where a draw or a model lacks a question that others have.
    """
    gaps = rows[
        (rows["stage"] == "score") & (rows["measure"] == "gap") & (rows["split"] == "held_out")
    ]
    drawn = _by_draw(gaps, condition)
    if drawn.empty:
        return None
    base = _of(gaps, [FINETUNED, ALIGNED, edit, *([] if noop is None else [noop])], drawn.columns)
    shift = float(base[FINETUNED] - base[ALIGNED])
    moved = drawn.mean(axis=1).to_numpy()
    of_the_edit = float(base[edit])
    if noop is not None:
        beside = _by_draw(gaps, on_aligned(condition)).reindex(drawn.index, columns=drawn.columns)
        if beside.isna().any(axis=None):
            raise DataError(f"{condition}: a net null needs the same draws on the aligned model")
        moved = moved + base[ALIGNED] - beside.mean(axis=1).to_numpy()
        of_the_edit += float(base[ALIGNED] - base[noop])
    if shift == 0:
        return None
    restored = _share(moved, base[FINETUNED], base[ALIGNED])
    own = float(_share(np.array([of_the_edit]), base[FINETUNED], base[ALIGNED])[0])
    predicted = _predictions(rows, condition) / shift
    n, undecided, largest = len(restored), 0, None
    if len(predicted):
        n = len(predicted)
        excess = float((restored - predicted[drawn.index].to_numpy()).max())
        rest = predicted.drop(drawn.index)
        largest = float(rest.max()) if len(rest) else None
        undecided = int((rest + max(excess, 0.0) >= own).sum())
    as_much = int((restored >= own).sum())
    return {
        "n": n,
        "n_run": len(restored),
        "n_questions": int(drawn.shape[1]),
        "n_as_much": as_much,
        "n_undecided": undecided,
        "maximum": float(restored.max()),
        "largest_prediction_not_run": largest,
        "restoration_of_the_edit": own,
        "net": noop is not None,
        "p": (1 + as_much + undecided) / (1 + n),
        "p_floor": 1 / (1 + n),
        "said": said(as_much, n, undecided),
    }


def said(n_as_much: int, n: int, n_undecided: int = 0) -> str:
    """The sentence of a null.

    Examples:
        >>> from steering.evidence.null_summary import said
        >>> said(0, 1000)
        '0 of 1,000 did as much'
        >>> said(1, 1000, 2)
        '1 of 1,000 did as much; 2 that were not run might have'
    """
    sentence = f"{n_as_much:,} of {n:,} did as much"
    return sentence + (f"; {n_undecided:,} that were not run might have" if n_undecided else "")


def null_of_first_order(null: FirstOrderNull, shift: float) -> dict[str, Any]:
    """One closed-form null of the scorecard.

    shift: gap of the fine-tuned above the aligned model on the same questions, nats per token.
    Fields: draws, rank, by_block (layer, predicted_nats, p), compared ("measured" or "predicted":
    what of the edit the set of all blocks is compared by), nats (that), p and p_standard_error (0
    is exact), random_mean and random_sd (of the shift), edit_in_sd (standard deviations above the
    mean of random subspaces), p_floor.
    """
    return {
        "draws": null.draws,
        "rank": null.rank,
        "by_block": [
            {"layer": layer, "predicted_nats": fall, "p": _p(null.by_block[layer])}
            for layer, fall in null.predicted.items()
        ],
        "compared": "predicted" if null.measured is None else "measured",
        "nats": null.compared,
        "p": _p(null.whole),
        "p_standard_error": null.whole.standard_error,
        "random_mean": _over(null.mean, shift),
        "random_sd": _over(null.spread, shift),
        "edit_in_sd": _over(null.compared - null.mean, null.spread),
        "p_floor": P_FLOOR,
    }


def _p(tail: Tail) -> float:
    return float(f"{tail.p:.3g}")


def _over(value: float, by: float) -> float | None:
    return value / by if by else None


def _by_draw(gaps: pd.DataFrame, condition: str) -> pd.DataFrame:
    """[draw question] of the gap. Raises: DataError where one lacks a question of the others."""
    own = gaps[gaps["condition"] == condition]
    table = own.pivot_table("value", "seed", "question_id", aggfunc="mean", dropna=False)
    if table.isna().any(axis=None):
        raise DataError(f"{condition}: draws lack questions that others have")
    return table


def _of(gaps: pd.DataFrame, conditions: list[str], questions: pd.Index) -> pd.Series:
    """Mean gap of each condition over these questions."""
    own = gaps[gaps["condition"].isin(conditions) & gaps["question_id"].isin(questions)]
    table = own.pivot_table("value", "question_id", "condition", aggfunc="mean")
    if lacking := [c for c in conditions if c not in table or table[c].isna().any()]:
        raise DataError(f"a null needs the gaps of {lacking} on the questions it was run on")
    if len(table) < len(questions):
        raise DataError("a null was run on questions that the models were not read on")
    return table.mean()


def _predictions(rows: pd.DataFrame, condition: str) -> pd.Series:
    """draw -> predicted fall of the gap, nats per token; empty where nothing was screened."""
    own = rows[(rows["stage"] == NULL_SCREEN) & (rows["condition"] == condition)]
    return -own.set_index("seed")["value"]


def _share(reached: NDArray[np.float64], start: float, goal: float) -> NDArray[np.float64]:
    ends = np.broadcast_to([[start], [goal]], (2, len(reached)))
    return taken_back(np.stack([ends[0], reached, ends[1]], axis=-1))

"""What audit.json says, made of the rows alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona.intervals import Estimate, bootstrap, share_of
from persona.rows import ALIGNED, FINETUNED, RESTORED
from steering.auditing.cue import NO_CUE, Cue
from steering.auditing.cue_search import MEASURED, PREDICTED
from steering.auditing.worst_cue import above_aligned, rises_of, worst_cue

SCHEMA_VERSION = 1
CORRECTION = (
    "intervals of the worst cue hold for all cues at once: 95th percentile of the largest "
    "studentised deviation over resampled questions"
)


def cue_facts(rows: pd.DataFrame, cues: Sequence[Cue], seed: int) -> list[dict[str, Any]]:
    """Every cue: of each condition its gap, how far that is above aligned, and what stays gone.

    above_aligned: paired over questions, each interval for itself. stays_restored: share of the
    fine-tune's shift under this cue that the condition does not show; null where the shift under
    the cue may be nothing. rise: of the restored model over the plain question, corrected.
    """
    of_cues = rows[(rows["stage"] == "cue") & (rows["measure"] == "gap")]
    rises = rises_of(of_cues, seed=seed)
    found = []
    for cue in cues:
        mine = of_cues[of_cues["cue"] == cue.name]
        table = mine.pivot_table("value", "question_id", "condition", aggfunc="mean")
        conditions = {
            name: _of_condition(table, name, seed) for name in dict.fromkeys(mine["condition"])
        }
        found.append(
            {
                "name": cue.name,
                "kind": cue.kind,
                "control": cue.control,
                "words": cue.words,
                "n": len(table),
                "rise": as_plain(rises.get(cue.name)),
                "conditions": conditions,
            }
        )
    return found


def _of_condition(table: pd.DataFrame, name: str, seed: int) -> dict[str, Any]:
    above = (table[name] - table[ALIGNED]).to_numpy(dtype=np.float64)
    stays = None
    if name not in (ALIGNED, FINETUNED):
        shift = bootstrap((table[FINETUNED] - table[ALIGNED]).to_numpy(), seed=seed)
        if shift.excludes_zero() and shift.value > 0:
            stays = share_of(table[[FINETUNED, name, ALIGNED]].to_numpy(), seed=seed)
    return {
        "gap": as_plain(bootstrap(table[name].to_numpy(), seed=seed)),
        "above_aligned": as_plain(bootstrap(above, seed=seed)),
        "stays_restored": as_plain(stays),
    }


def worst_facts(rows: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Condition -> its worst cue, for all but the two models themselves; the removal's verdict."""
    of_cues = rows[(rows["stage"] == "cue") & (rows["measure"] == "gap")]
    names = [name for name in dict.fromkeys(of_cues["condition"]) if name != ALIGNED]
    by_condition = {name: worst_cue(of_cues, name, seed=seed) for name in names}
    mine = by_condition[RESTORED]
    shift = above_aligned(of_cues, FINETUNED)[NO_CUE.name].to_numpy()
    return {
        "verdict": mine.holds,
        "shift": as_plain(bootstrap(shift, seed=seed)),
        "correction": CORRECTION,
        "by_condition": {name: as_plain(worst) for name, worst in by_condition.items()},
    }


def search_facts(rows: pd.DataFrame) -> dict[str, Any] | None:
    """How many prefixes were screened and run, and whether the prediction ranks what was run."""
    mine = rows[rows["stage"] == "search"]
    if mine.empty:
        return None
    wide = mine.pivot_table("value", ["text", "candidate", "split"], "measure").reset_index()
    run = wide[wide[MEASURED].notna()]
    ranks = run[[PREDICTED, MEASURED]].rank()
    agree = float(ranks.corr().iloc[0, 1]) if len(run) > 2 else math.nan
    means = run.groupby("candidate")[MEASURED].mean()
    kept = run[run["split"] == "kept"].sort_values(MEASURED, ascending=False)
    return {
        "n_screened": len(wide),
        "n_run": len(run),
        "spearman": None if math.isnan(agree) else agree,
        "mean_measured": {str(name): float(value) for name, value in means.items()},
        "kept": [
            {"words": row.text, "from": row.candidate, "predicted": getattr(row, PREDICTED),
             "measured": getattr(row, MEASURED)}
            for row in kept.itertuples()
        ],
    }  # fmt: skip


def as_plain(value: Any) -> Any:
    """JSON-able: estimates as value, low, high, n; an end that is not there is null."""
    if isinstance(value, Estimate) or (is_dataclass(value) and not isinstance(value, type)):
        return as_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): as_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

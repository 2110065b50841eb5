"""What watched fine-tunes say of an alarm: bad and harmless checkpoints, one fine-tune left out.

A course is the readings of one watched run (`persona.organisms.read_readings`), along several
directions. A pair is a bad fine-tune and its harmless twin on the same questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.errors import DataError
from persona.intervals import Estimate, bootstrap
from persona.organisms import family_alarm
from probes.evaluation.metrics import auroc

Array = NDArray[np.float64]
Pair = Mapping[str, pd.DataFrame]
"""`bad` and `good` -> readings."""
PREFIX = "projection_good:"


def checkpoints(pairs: Mapping[str, Pair]) -> pd.DataFrame:
    """One row a checkpoint after the first: fine_tune, is_bad, step, and a column a trait.

    Of a trait: the mean change of the projection of the good answers since step 0, in residual
    units. Raises: DataError where the runs were not watched along the same.
    """
    parts, traits = [], None
    for name, pair in pairs.items():
        for kind, readings in pair.items():
            chosen = readings[readings["measure"].str.startswith(PREFIX)]
            wide = chosen.pivot_table("value", "step", "measure")
            found = [column.removeprefix(PREFIX) for column in wide]
            traits = found if traits is None else traits
            if found != traits or not found:
                raise DataError(f"{name}, {kind}: watched along {found}, others along {traits}")
            change = (wide - wide.iloc[0]).iloc[1:].set_axis(found, axis=1)
            parts.append(change.reset_index().assign(fine_tune=name, is_bad=kind == "bad"))
    return pd.concat(parts, ignore_index=True)


def left_one_out(table: pd.DataFrame, *, several: bool = True) -> dict[str, float]:
    """Fine-tune -> AUROC of its bad against its harmless checkpoints, learnt on all others.

    several: a ridge logistic regression of all traits; else the one trait that alone tells those
        others apart best, upward (a bad fine-tune is further toward it).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    traits = [c for c in table if c not in ("step", "fine_tune", "is_bad")]
    found = {}
    for name in table["fine_tune"].unique():
        others, own = table[table["fine_tune"] != name], table[table["fine_tune"] == name]
        if several:
            model = make_pipeline(StandardScaler(), LogisticRegression())
            model.fit(others[traits], others["is_bad"])
            scores = model.decision_function(own[traits])
        else:
            best = max(traits, key=lambda t: _auroc(others[t].to_numpy(), others["is_bad"]))
            scores = own[best].to_numpy()
        found[str(name)] = _auroc(scores, own["is_bad"])
    return found


def over_fine_tunes(aurocs: Mapping[str, float], seed: int = 0) -> Estimate:
    """Mean over fine-tunes, with a bootstrap over them: n is their number, not that of steps."""
    return bootstrap(np.array(list(aurocs.values())), seed=seed)


def swapped_p(table: pd.DataFrame, *, several: bool = True) -> float:
    """Share of all ways to swap bad and harmless within fine-tunes that do at least as well.

    Exact, the true labels among them: of four fine-tunes the smallest is 1/16.
    """
    observed = np.mean(list(left_one_out(table, several=several).values()))
    names = list(table["fine_tune"].unique())
    as_good = []
    for swaps in product((False, True), repeat=len(names)):
        turned = table["fine_tune"].map(dict(zip(names, swaps, strict=True))).astype(bool)
        labelled = table.assign(is_bad=table["is_bad"] ^ turned)
        value = np.mean(list(left_one_out(labelled, several=several).values()))
        as_good.append(value >= observed - 1e-12)
    return float(np.mean(as_good))


def alarm_at(watched: pd.DataFrame, harmless: pd.DataFrame, rate: float = 0.05) -> int | None:
    """The step at which the alarm on all traits rings, calibrated on the harmless run."""
    steps = sorted(watched["step"].unique().tolist())
    series = {name: _series(watched, name) for name in _traits(watched)}
    alarm = family_alarm(
        {name: _series(harmless, name) for name in series}, len(steps), false_alarm_rate=rate
    )
    found = alarm.rings_at(series)
    return None if found is None else int(steps[found[0]])


def gap_leaves_twin_at(bad: pd.DataFrame, twin: pd.DataFrame, seed: int = 0) -> int | None:
    """First step from which on the gap lies above the twin's, its interval over questions above 0.

    Paired by question, each less its own first reading. None where it never stays.
    """
    changes = []
    for readings in (bad, twin):
        wide = readings[readings["measure"] == "gap"].pivot_table("value", "step", "question_id")
        changes.append(wide - wide.iloc[0])
    apart = (changes[0] - changes[1]).dropna()
    above = {
        int(step): bootstrap(row.to_numpy(), seed=seed).low > 0 for step, row in apart.iterrows()
    }
    first = None
    for step, is_above in sorted(above.items()):
        if not is_above:
            first = None
        elif first is None:
            first = step
    return first


def _traits(readings: pd.DataFrame) -> list[str]:
    measures = [m for m in readings["measure"].unique() if str(m).startswith(PREFIX)]
    return [measure.removeprefix(PREFIX) for measure in measures]


def _series(readings: pd.DataFrame, trait: str) -> list[float]:
    chosen = readings[readings["measure"] == PREFIX + trait]
    return chosen.groupby("step")["value"].mean().sort_index().tolist()


def _auroc(scores: Array, positive: pd.Series) -> float:
    once = np.ones((1, len(scores)))
    return float(auroc(np.asarray(scores, dtype=float), positive.to_numpy(dtype=bool), once)[0])

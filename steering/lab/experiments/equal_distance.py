"""Ways of bringing a model back, compared where they have moved it equally far on neutral text.

Drift is KL(fine-tuned || brought back) on neutral text, nats per token: 0 where nothing was done.
`benchmarks/compare_edits.py` compares edits by it too. It is no damage: the aligned model itself is
far away by it, so what is left to the aligned model belongs beside.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.intervals import Estimate, crossed_bootstrap
from persona.models import ModelPair
from persona.models.pair import Side
from steering.lab.bench.estimates import paired, rows_where

DRIFT = "drift_kl_nats"
SHARES = (0.25, 0.5, 1.0)
"""Drifts compared at, as shares of the largest that every way reaches."""


def against_finetuned(pair: ModelPair, finetuned: ModelPair) -> ModelPair:
    """A pair whose reference is the given fine-tune: what was done to it, not what it was made of.

    pair: whose fine-tuned side is scored.
    """
    return dataclasses.replace(
        pair,
        open_side=lambda side: (
            finetuned.open_side("finetuned") if side == "aligned" else pair.open_side("finetuned")
        ),
    )


def the_aligned_model(pair: ModelPair) -> ModelPair:
    """A pair that takes the aligned model for what the fine-tune was brought back to."""
    sides: dict[Side, Side] = {"aligned": "finetuned", "finetuned": "aligned"}
    return dataclasses.replace(pair, open_side=lambda side: pair.open_side(sides[side]))


def drift_rows(scored: pd.DataFrame) -> pd.DataFrame:
    """Rows of `score_neutral` against the fine-tuned model, under the name of the drift."""
    rows = scored[scored["measure"] == "neutral_kl_nats"]
    return rows.assign(measure=DRIFT, split="neutral", stage="score")


@dataclass(frozen=True)
class Strength:
    """One strength of a way. drift: mean, nats. gaps: [seed question]."""

    strength: float
    drift: float
    gaps: NDArray[np.float64]


def strengths(
    rows: pd.DataFrame, condition: str, strength: str, none: NDArray[np.float64]
) -> list[Strength]:
    """The strengths of one way, from nothing done (drift 0, gaps `none`) upwards.

    strength: the column that holds it, "n_answers" or "coefficient".
    """
    mine = rows_where(rows, condition=condition)
    found = [Strength(0.0, 0.0, none)]
    for value in sorted(mine[strength].dropna().unique().tolist()):
        chosen = rows_where(mine, **{strength: value})
        gaps = paired(chosen, "gap", "held_out", (condition,))
        drift = paired(chosen, DRIFT, "neutral", (condition,))
        if gaps is not None and drift is not None:
            found.append(Strength(float(value), float(drift.mean()), gaps[..., 0]))
    return found


def reach(ways: Mapping[str, Sequence[Strength]]) -> float:
    """The largest drift that every way reaches."""
    return min(max(strength.drift for strength in found) for found in ways.values())


def gaps_at(found: Sequence[Strength], drift: float) -> NDArray[np.float64] | None:
    """Gaps [seed question] at a drift, linear between the two strengths around it.

    The first pass through that drift counts, from no strength up; None where it is never reached.
    """
    for lower, upper in itertools.pairwise(found):
        if lower.drift <= drift <= upper.drift:
            width = upper.drift - lower.drift
            share = 0.0 if width == 0 else (drift - lower.drift) / width
            return np.asarray((1 - share) * lower.gaps + share * upper.gaps)
    return None


def falls(
    ways: Mapping[str, Sequence[Strength]], levels: Sequence[float]
) -> dict[str, list[tuple[float, Estimate]]]:
    """By way: at each drift it reaches, how far the gap has fallen, with its interval."""
    found: dict[str, list[tuple[float, Estimate]]] = {}
    for name, strengths in ways.items():
        found[name] = []
        for level in levels:
            gaps = gaps_at(strengths, level)
            if gaps is not None:
                found[name].append((level, crossed_bootstrap(strengths[0].gaps - gaps)))
    return found

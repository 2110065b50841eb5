"""What writing a trait's vector does to the trait score, beside what other vectors do.

Every control is written at the same block, at the same norm, with the same random numbers for the
answers: random directions, and vectors of nonsense traits or of shuffled poles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import Direction
from persona.errors import DataError
from persona.intervals import Estimate, bootstrap
from persona.traits.trait_facts import SteeredEffect
from steering.evidence.random_edits import random_directions

VECTOR = "vector"


def control_directions(
    direction: Direction,
    others: Mapping[str, Float[Tensor, " d_model"]],
    n_random: int,
    seed: int = 0,
) -> dict[str, Direction]:
    """name -> direction of the same norm at the same block: random ones, then the others.

    Raises: DataError for another that is zero.
    """
    drawn = random_directions(direction, n_random, seed)
    found = {f"random {place}": one for place, one in enumerate(drawn)}
    for name, vector in others.items():
        norm = vector.double().norm()
        if not norm > 0:
            raise DataError(f"the vector {name} is zero at block {direction.space.layer}")
        scaled = (vector.double() * direction.norm / norm).float()
        found[name] = Direction(scaled, direction.space, name)
    return found


def steered_effect(
    rows: pd.DataFrame, *, base: str, controls: Sequence[str], sign: float, seed: int = 0
) -> SteeredEffect:
    """The vector's effect on the trait score beside its controls, paired by question.

    rows: one an answer, with condition, question_id, answer and trait (NaN without a score). base:
        the condition without any vector. sign: 1 where the score is to rise, -1 where to fall.
    Questions that lack a score under one of the conditions are left out.
    Raises: DataError where none is left.
    """
    rows = rows[rows["condition"].isin([base, VECTOR, *controls])].dropna(subset="trait")
    rows = rows.assign(at_equal_length=_at_equal_length(rows))
    tables = {
        column: rows.pivot_table(column, "question_id", "condition", aggfunc="mean")
        .reindex(columns=[base, VECTOR, *controls])
        .dropna()
        for column in ("trait", "at_equal_length")
    }
    scores = tables["trait"]
    if scores.empty:
        raise DataError("no question has a trait score under every condition")

    def net(table: pd.DataFrame) -> Estimate:
        other = table[list(controls)].mean(axis=1) if controls else table[base]
        return bootstrap(sign * (table[VECTOR] - other).to_numpy(), seed=seed)

    means = scores.mean()
    return SteeredEffect(
        net(scores),
        net(tables["at_equal_length"]),
        float(sign * (means[VECTOR] - means[base])),
        {name: float(sign * (means[name] - means[base])) for name in controls},
    )


def score_difference(rows: pd.DataFrame, first: str, second: str, seed: int = 0) -> Estimate:
    """How much higher the trait score is under the first condition, paired by question.

    NaN with no question where none has both.
    """
    table = rows.pivot_table("trait", "question_id", "condition", aggfunc="mean")
    table = table.reindex(columns=[first, second]).dropna()
    if table.empty:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    return bootstrap((table[first] - table[second]).to_numpy(), seed=seed)


def shuffled_controls(
    shuffled: Float[Tensor, "draw layer d_model"], layer: int, n: int
) -> dict[str, Float[Tensor, " d_model"]]:
    """The first `n` vectors of shuffled poles at one block, by name."""
    return {f"shuffled poles {place}": shuffled[place, layer] for place in range(n)}


def _at_equal_length(rows: pd.DataFrame) -> pd.Series:
    """The trait score less what its length lets one expect, within a condition.

    The slope on log(1 + words) is the one that all conditions share; between conditions it then
    takes away what their lengths explain and no more.
    """
    length = np.log1p(rows["answer"].str.split().str.len().astype(float))
    within = rows.assign(length=length).groupby("condition")
    x = length - within["length"].transform("mean")
    y = rows["trait"] - within["trait"].transform("mean")
    squares = float((x**2).sum())
    slope = float((x * y).sum()) / squares if squares > 0 else 0.0
    return rows["trait"] - slope * (length - length.mean())

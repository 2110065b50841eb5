"""At which block and how strongly a trait's vector is written: chosen on the making half alone.

At each of a few blocks the largest coefficient is taken that neutral text bears; among these the
one under which the plain model shows most of the trait. Writing is `add` at every token but the
first of the text.

Source: Chen et al. 2025 choose the layer by the trait score under steering. differs: at equal
damage and not at equal coefficient, since the same coefficient is far more at one block than at
another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.behaviour.gap import score_neutral
from persona.behaviour.scoring import Condition
from persona.data.types import NeutralText
from persona.directions.direction import Direction
from persona.errors import SteeringError
from persona.models.pair import ModelPair
from steering.edits.from_directions import add
from steering.edits.steer import edited

METHOD = "persona vector (mean difference of instructed answers)"
COEFFICIENTS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Of the vector as it is: at 1 the way from the answers against the trait to those for it."""
MOST_DAMAGE = 0.2
"""Rise of the cross-entropy of neutral text, nats per token."""
DEPTHS = (0.3, 0.8)


@dataclass(frozen=True)
class TraitPlace:
    """layer: 0-based block whose output is written. coefficient: times the vector, norm included.

    damage: rise of the cross-entropy of the neutral texts it was chosen on, nats per token.
    score: mean trait score of the steered answers to the making questions.
    """

    layer: int
    coefficient: float
    damage: float
    score: float


def candidate_blocks(n_layers: int, n: int, known: Sequence[int] | None = None) -> list[int]:
    """`n` blocks from 0.3 to 0.8 of the depth, evenly, or as many as there are.

    known: blocks that have a vector, default all; of others the nearest that has one is taken.

    Examples:
        >>> from steering.traits.trait_place import candidate_blocks
        >>> candidate_blocks(24, 4)
        [7, 11, 15, 18]
    """
    first, last = (depth * (n_layers - 1) for depth in DEPTHS)
    steps = [first + (last - first) * i / max(n - 1, 1) for i in range(n)]
    blocks = range(n_layers) if known is None else known
    return sorted({min(blocks, key=lambda block: abs(block - round(step))) for step in steps})


def vector_at(pair: ModelPair, vectors: Float[Tensor, "layer d_model"], layer: int) -> Direction:
    """The trait's direction at one block. Raises: DataError where it is zero there."""
    return Direction(vectors[layer].float(), pair.space(layer), METHOD)


def damage_of(
    pair: ModelPair,
    directions: Mapping[str, Direction],
    coefficients: Sequence[float],
    neutral: Sequence[NeutralText],
) -> pd.DataFrame:
    """What adding each direction does to neutral text, one row a direction, coefficient and text.

    Columns: direction, coefficient, question_id, ce_rise_nats (above the plain model's
    cross-entropy of the same text), kl_nats (from the plain model).
    """
    conditions = [Condition("plain", "aligned")]
    for name, direction in directions.items():
        conditions += [
            edited(name, "aligned", add(direction, factor), facts={"coefficient": factor})
            for factor in coefficients
        ]
    table = score_neutral(pair, neutral, conditions, description="Reading neutral text")
    table["coefficient"] = table["coefficient"].fillna(0.0)
    wide = table.pivot_table(
        "value", ["condition", "coefficient", "question_id"], "measure"
    ).reset_index()
    plain = wide[wide["condition"] == "plain"].set_index("question_id")["neutral_ce_nats"]
    steered = wide[wide["condition"] != "plain"]
    return pd.DataFrame(
        {
            "direction": steered["condition"],
            "coefficient": steered["coefficient"],
            "question_id": steered["question_id"],
            "ce_rise_nats": steered["neutral_ce_nats"] - steered["question_id"].map(plain),
            "kl_nats": steered["neutral_kl_nats"],
        }
    ).reset_index(drop=True)


def bearable(damage: pd.DataFrame, most: float = MOST_DAMAGE) -> dict[str, tuple[float, float]]:
    """direction -> the largest coefficient whose mean damage is `most` at most, and its damage.

    Coefficients above one that does too much do not count. Where even the smallest does, it is
    taken all the same, so that no block is lost for its norm.
    """
    found = {}
    for name, rows in damage.groupby("direction", sort=False):
        mean = rows.groupby("coefficient")["ce_rise_nats"].mean().sort_index()
        below = mean[(mean <= most).cummin()]
        taken = below.index[-1] if len(below) else mean.index[0]
        found[str(name)] = (float(taken), float(mean[taken]))
    return found


def best_place(
    scores: Mapping[int, Sequence[float]], bears: Mapping[int, tuple[float, float]]
) -> TraitPlace:
    """The block whose steered answers score highest; of equal ones the one with less damage.

    scores: block -> trait scores of the steered answers, NaN left out.
    Raises: SteeringError where no answer has a score.
    """
    means = {
        layer: sum(known) / len(known)
        for layer, found in scores.items()
        if (known := [score for score in found if score == score])
    }
    if not means:
        raise SteeringError("no steered answer has a trait score, so no block can be chosen")
    layer = max(means, key=lambda one: (means[one], -bears[one][1]))
    coefficient, damage = bears[layer]
    return TraitPlace(layer, coefficient, damage, means[layer])

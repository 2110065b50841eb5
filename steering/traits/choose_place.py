"""The block and coefficient of a trait's vector, by answers to the making questions."""

from __future__ import annotations

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.data.types import NeutralText
from persona.traits.answer_plan import TraitPlan
from steering.traits.trait_place import (
    COEFFICIENTS,
    TraitPlace,
    bearable,
    best_place,
    candidate_blocks,
    damage_of,
    vector_at,
)
from steering.traits.trait_session import TraitSession


def choose_place(
    session: TraitSession,
    plan: TraitPlan,
    vectors: Float[Tensor, "layer d_model"],
    neutral: list[NeutralText],
) -> tuple[TraitPlace, pd.DataFrame]:
    """The place, and the table it was chosen from: layer, coefficient, damage, score."""
    known = [layer for layer, row in enumerate(vectors) if bool(row.isfinite().all())]
    layers = candidate_blocks(session.pair.n_layers, plan.n_layers, known)
    directions = {str(layer): vector_at(session.pair, vectors, layer) for layer in layers}
    damage = session.stages.table(
        "damage-choosing",
        lambda: damage_of(session.pair, directions, COEFFICIENTS, neutral),
    )
    bears = {int(name): found for name, found in bearable(damage).items()}
    answered = [
        session.answers(
            "making", "plain", [0], f"block {layer}", directions[str(layer)], bears[layer][0]
        )
        for layer in layers
    ]
    rows = session.scored(pd.concat(answered, ignore_index=True))
    scores = {
        layer: rows.loc[rows["condition"] == f"block {layer}", "trait"].tolist() for layer in layers
    }
    place = best_place(scores, bears)
    means = rows.groupby("condition")["trait"].mean()
    table = pd.DataFrame(
        {
            "layer": layers,
            "coefficient": [bears[layer][0] for layer in layers],
            "damage_nats": [bears[layer][1] for layer in layers],
            "score": [float(means[f"block {layer}"]) for layer in layers],
        }
    )
    return place, table

"""The first-order screen of every candidate at every block, and the rows of the 2x2 effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.directions import Effect
from persona.models.pair import ModelPair
from steering.identification.attribution import first_order_effects
from steering.identification.candidates import FixedRows, Means, build_vector

RANKS = (1, 2, 4, 8)


def screen(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    candidates: Mapping[str, FixedRows],
    means: Means,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """First-order effect of every candidate, at a few ranks, at each of its blocks, by question."""
    tried = [
        (candidate, rank, layer)
        for candidate in candidates.values()
        for rank in sorted({*RANKS, candidate.max_rank})
        if rank <= candidate.max_rank
        for layer in candidate.at
    ]
    subspaces = [
        build_vector(pair, candidate, means, [layer], rank).subspaces[layer]
        for candidate, rank, layer in tried
    ]
    effects = first_order_effects(pair, questions, subspaces, "gap", token_budget)
    return pd.DataFrame(
        [
            {
                "stage": "screen",
                "condition": "finetuned",
                "question_id": question.id,
                "domain": question.domain,
                "split": "selection",
                "measure": "predicted_gap_change",
                "value": float(effects[place, i]),
                "layer": layer,
                "candidate": candidate.name,
                "rank": rank,
            }
            for place, (candidate, rank, layer) in enumerate(tried)
            for i, question in enumerate(questions)
        ]
    )


def effect_rows(effects: Mapping[str, Effect]) -> pd.DataFrame:
    """Norm and split-half cosine of the 2x2 effects by block."""
    return pd.DataFrame(
        [
            {
                "stage": "direction",
                "condition": "",
                "question_id": "",
                "domain": "",
                "split": "train",
                "measure": measure,
                "value": float(values[layer]),
                "layer": layer,
                "candidate": name,
                "rank": 1,
            }
            for name, effect in effects.items()
            for measure, values in (
                ("norm", effect.norms),
                ("split_half_cosine", effect.split_half_cosine),
                ("split_half_low", effect.split_half_low),
                ("split_half_high", effect.split_half_high),
                ("bootstrap_cosine_low", effect.bootstrap_cosine[:, 0]),
                ("bootstrap_cosine_high", effect.bootstrap_cosine[:, 1]),
            )
            for layer in range(len(values))
        ]
    )

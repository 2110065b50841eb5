"""Conditions to score a pair under, and what is read of them: gap, damage, projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from persona.activations import collect_rows
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair, NeutralText
from persona.directions import PersonaVector
from persona.models import ModelPair
from persona.rows import INDUCED, NOOP, RANDOM, RESTORED, ZERO_ABLATED
from steering.edits.from_directions import ablate, induce, restore
from steering.edits.steer import edited
from steering.identification.candidates import Means, random_vector


def score(
    pair: ModelPair,
    neutral: Sequence[NeutralText],
    conditions: Sequence[Condition],
    **splits: Sequence[AnswerPair],
) -> pd.DataFrame:
    """Gap and KL of every condition on the questions of each split, and neutral damage.

    splits: trained_on, held_out -> questions. Rows as in rows.parquet, stage score.
    """
    parts = [
        score_pairs(pair, asked, conditions, description=f"Scoring {split}").assign(split=split)
        for split, asked in splits.items()
    ]
    parts.append(score_neutral(pair, neutral, conditions).assign(split="neutral"))
    return pd.concat(parts, ignore_index=True).assign(stage="score")


def random_conditions(
    pair: ModelPair, vector: PersonaVector, means: Means, n: int
) -> list[Condition]:
    """The null: the same restoration along `n` random directions."""
    return [
        edited(RANDOM, "finetuned", restore(random_vector(pair, vector, means, draw)), draw)
        for draw in range(n)
    ]


def edited_conditions(vector: PersonaVector) -> list[Condition]:
    """The fine-tuned model restored and zero-ablated, the aligned one induced and restored."""
    return [
        edited(NOOP, "aligned", restore(vector)),
        edited(INDUCED, "aligned", induce(vector)),
        edited(ZERO_ABLATED, "finetuned", ablate(vector)),
        edited(RESTORED, "finetuned", restore(vector)),
    ]


def project_answers(
    pair: ModelPair,
    vector: PersonaVector,
    questions: Sequence[AnswerPair],
    sides: Mapping[str, Any],
) -> pd.DataFrame:
    """Projection of every good answer on the vector's direction at its middle block.

    0 is the mean of the aligned model's good answers to the questions that the vector was made of,
    1 that of the fine-tuned model's bad ones. sides: condition -> side of the pair to read.
    Rows: condition, question_id, domain, measure "projection", value, layer.
    """
    layer = vector.layers[len(vector.layers) // 2]
    subspace, direction = vector.subspaces[layer], vector.direction(layer)
    start = float(subspace.aligned_mean @ subspace.basis @ direction.unit)
    dialogues = pair.chat.encode_all([q.good_dialogue for q in questions])
    rows = []
    for condition, side in sides.items():
        with pair.active(side) as bridge:
            means = collect_rows(bridge, dialogues, [layer])[:, 0]
        values = means @ subspace.effective_readout.T @ subspace.basis @ direction.unit - start
        values = values / direction.norm
        rows += [
            {
                "condition": condition,
                "question_id": q.id,
                "domain": q.domain,
                "measure": "projection",
                "value": float(value),
                "layer": layer,
                "split": "held_out",
                "stage": "projection",
            }
            for q, value in zip(questions, values, strict=True)
        ]
    return pd.DataFrame(rows)

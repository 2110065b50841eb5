"""Directions of any origin restored at one block, side by side: what each cures, and at what cost.

restoration = (gap of the fine-tune - gap restored) / (gap of the fine-tune - gap of the aligned)
p           = (1 + random subspaces of the same rank that restore at least as much) / (1 + draws)
damage      = rise of cross-entropy on neutral text over the fine-tuned model, nats per token
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data.types import AnswerPair, NeutralText
from persona.directions.direction import orthonormal
from persona.errors import SteeringError
from persona.intervals import bootstrap, taken_back
from persona.models.pair import ModelPair
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.identification.candidates import Means, from_bases, random_vector


def compare_at_block(
    pair: ModelPair,
    layer: int,
    directions: Mapping[str, Float[Tensor, "rank d_model"]],
    means: Means,
    questions: Sequence[AnswerPair],
    neutral: Sequence[NeutralText],
    *,
    n_random: int = 20,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """One row per entry of `directions`, whose span is restored to the aligned mean at the block.

    questions, neutral: must be none that the directions were made of or chosen on.
    Columns: name, rank, restoration, low, high (95 % over questions), kl_restoration, damage_nats,
    p, n_random.
    Raises: SteeringError without directions or questions, or for a name of a condition here;
    DataError for vectors that depend on each other.
    """
    if not directions or not questions:
        raise SteeringError("a comparison needs at least one direction and one question")
    if taken := {"aligned", "finetuned"} & set(directions):
        raise SteeringError(f"a direction cannot be called {sorted(taken)[0]!r} here")
    vectors = {
        name: from_bases(pair, {layer: orthonormal(rows)}, means, name)
        for name, rows in directions.items()
    }
    restored = [edited(name, "finetuned", restore(vectors[name])) for name in vectors]
    by_rank = {vector.rank: vector for vector in vectors.values()}
    nulls = [
        edited(
            f"random r{rank}",
            "finetuned",
            restore(random_vector(pair, like, means, seed + draw)),
            draw,
        )
        for rank, like in by_rank.items()
        for draw in range(n_random)
    ]
    rows = score_pairs(pair, questions, [*UNEDITED, *restored, *nulls], token_budget=token_budget)
    ce = score_neutral(pair, neutral, [*UNEDITED, *restored], token_budget=token_budget)
    table = pd.concat([rows, ce]).pivot_table("value", ["condition", "seed"], "measure")
    aligned, tuned = table.loc[("aligned", 0)], table.loc[("finetuned", 0)]
    restoration = (tuned["gap"] - table["gap"]) / (tuned["gap"] - aligned["gap"])
    gaps = rows[rows["measure"] == "gap"].pivot_table("value", "question_id", ["condition", "seed"])
    found = []
    for name, vector in vectors.items():
        reading, value = table.loc[(name, 0)], restoration.loc[(name, 0)]
        three = [("finetuned", 0), (name, 0), ("aligned", 0)]
        over_questions = bootstrap(gaps[three].to_numpy(), taken_back)
        draws = restoration.loc[f"random r{vector.rank}"] if n_random else restoration[:0]
        found.append(
            {
                "name": name,
                "rank": vector.rank,
                "restoration": value,
                "low": over_questions.low,
                "high": over_questions.high,
                "kl_restoration": 1 - reading["kl_good_nats"] / tuned["kl_good_nats"],
                "damage_nats": reading["neutral_ce_nats"] - tuned["neutral_ce_nats"],
                "p": (1 + int((draws >= value).sum())) / (1 + n_random),
                "n_random": n_random,
            }
        )
    return pd.DataFrame(found)

"""Does the direction of one fine-tune cure another? Cosines and causal transfer between fine-tunes.

All fine-tunes share one aligned model, so their directions lie in one space. Cell (i, j) is the
restoration of fine-tune j when the persona vector of fine-tune i is restored in it:

    (gap of j - gap of j with vector i restored) / (gap of j - gap of the aligned model)

1 is the whole shift, 0 nothing, below 0 worse than before. It need not be symmetric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data.types import AnswerPair
from persona.directions import PersonaVector
from persona.errors import DataError
from persona.intervals import bootstrap, share_of
from persona.models.pair import ModelPair
from steering.edits.from_directions import restore
from steering.edits.steer import edited


def vector_cosines(vectors: Mapping[str, PersonaVector]) -> pd.DataFrame:
    """Cosine of every two persona vectors at every block that both have.

    The direction compared is `PersonaVector.direction`: from the aligned to the fine-tuned mean.
    Columns: first, second, layer, cosine.
    Raises: SpaceMismatchError for vectors of different models.
    """
    rows = [
        {
            "first": first,
            "second": second,
            "layer": layer,
            "cosine": vectors[first].direction(layer).cosine(vectors[second].direction(layer)),
        }
        for first in vectors
        for second in vectors
        for layer in sorted({*vectors[first].layers} & {*vectors[second].layers})
    ]
    return pd.DataFrame(rows, columns=["first", "second", "layer", "cosine"])


def transfer_matrix(
    fine_tunes: Mapping[str, Callable[[], ModelPair]],
    vectors: Mapping[str, PersonaVector],
    questions: Sequence[AnswerPair],
    *,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """Restoration of every fine-tune by every vector, with 95 % intervals over questions.

    fine_tunes: name -> function that loads the pair; called one after the other, so that one is in
        memory at a time. All must share one aligned model.
    vectors: name -> persona vector, usually the one of each fine-tune.
    questions: held out of everything that made the vectors.
    Columns: vector, fine_tune, restoration, low, high, kl_restoration, shift, shift_low,
    shift_high, n. Restoration is NaN where the interval of the shift contains 0: there is nothing
    to restore. kl_restoration as in the scorecard: how much of the way back to the aligned model.
    Raises: DataError for no questions; SpaceMismatchError for a vector of another model.
    """
    if not questions:
        raise DataError("a transfer matrix needs questions to score on")
    rows = []
    for name, load in fine_tunes.items():
        pair = load()
        for vector in vectors.values():
            for layer in vector.layers:
                vector.subspaces[layer].space.require_same(pair.space(layer))
        readings = score_pairs(
            pair,
            questions,
            [
                *UNEDITED,
                *(
                    edited(f"restored by {key}", "finetuned", restore(vector))
                    for key, vector in vectors.items()
                ),
            ],
            token_budget=token_budget,
            description=f"Transfer to {name}",
        )
        kl = readings[readings["measure"] == "kl_good_nats"].groupby("condition")["value"].mean()
        gaps = readings[readings["measure"] == "gap"].pivot(
            index="question_id", columns="condition", values="value"
        )
        shift = bootstrap((gaps["finetuned"] - gaps["aligned"]).to_numpy(), seed=seed)
        for key in vectors:
            columns = gaps[["finetuned", f"restored by {key}", "aligned"]].to_numpy()
            share = share_of(columns, seed=seed)
            defined = shift.excludes_zero()
            rows.append(
                {
                    "vector": key,
                    "fine_tune": name,
                    "restoration": share.value if defined else np.nan,
                    "low": share.low if defined else np.nan,
                    "high": share.high if defined else np.nan,
                    "kl_restoration": 1 - kl[f"restored by {key}"] / kl["finetuned"],
                    "shift": shift.value,
                    "shift_low": shift.low,
                    "shift_high": shift.high,
                    "n": shift.n,
                }
            )
    return pd.DataFrame(rows)

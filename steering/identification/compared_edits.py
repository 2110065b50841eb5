"""What taking a vector out, putting it in and moving at random do, on the same questions."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from persona.behaviour import Condition, score_neutral, score_pairs
from persona.data.types import AnswerPair, NeutralText
from persona.directions import PersonaVector
from persona.errors import DataError
from persona.models.pair import ModelPair
from persona.rows import (
    ALIGNED,
    FINETUNED,
    INDUCED,
    NOOP,
    RANDOM,
    RANDOM_MATCHED,
    RESTORED,
    ZERO_ABLATED,
    tidy,
)
from steering.edits import ablate, edited, induce, restore
from steering.evidence.random_edits import RecordedSteps
from steering.identification.candidates import random_vector
from steering.identification.identify import Identification


def compare_edits(
    pair: ModelPair,
    found: Identification | PersonaVector,
    questions: Sequence[AnswerPair],
    neutral: Sequence[NeutralText] = (),
    *,
    n_random: int = 6,
) -> pd.DataFrame:
    """Gap and damage of both models, and of each edit of a vector beside its random controls.

    The fine-tuned model is restored, ablated to zero, and moved along random directions in the very
    steps of the restoration; the aligned one is given the direction, and restored, which should
    change nothing. Of an identification, random subspaces are restored to the aligned mean too,
    which a vector alone does not know at other directions.

    questions: that chose nothing of the vector. neutral: texts whose cross-entropy is the damage.
    n_random: draws of each control.
    Returns rows as in rows.parquet (`persona.rows.COLUMNS`), stage "score", splits "held_out" and
    "neutral": what `persona.report.figures` draws.
    Raises: DataError without questions.
    """
    if not questions:
        raise DataError("edits are compared on questions; none were given")
    vector = found if isinstance(found, PersonaVector) else found.vector
    steps = RecordedSteps(restore(vector))
    plain = [Condition(ALIGNED, "aligned"), Condition(FINETUNED, "finetuned")]
    plain += [
        edited(NOOP, "aligned", restore(vector)),
        edited(INDUCED, "aligned", induce(vector)),
        edited(ZERO_ABLATED, "finetuned", ablate(vector)),
        edited(RESTORED, "finetuned", steps.edits()),
    ]
    # They repeat the steps that the restoration has just taken, so they come after it.
    controls = [
        edited(RANDOM_MATCHED, "finetuned", steps.random_edits(draw), draw)
        for draw in range(n_random)
    ]
    if isinstance(found, Identification):
        subspaces = [random_vector(pair, vector, found.means, draw) for draw in range(n_random)]
        controls += [
            edited(RANDOM, "finetuned", restore(one), draw) for draw, one in enumerate(subspaces)
        ]
    parts = [score_pairs(pair, questions, [*plain, *controls]).assign(split="held_out")]
    if neutral:
        parts.append(score_neutral(pair, neutral, plain).assign(split="neutral"))
    return tidy(pd.concat(parts, ignore_index=True).assign(stage="score"))

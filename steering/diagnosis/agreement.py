"""What is found before minutes of work: texts too long, numbers that are none, equal models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona.activations.collect import collect_rows
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data.types import AnswerPair, Dialogue
from persona.errors import DataError
from persona.models import ModelPair
from persona.models.pair import SIDES, Side
from persona.models.sources import resolve, shipped_or_ref
from persona.rows import ALIGNED, FINETUNED
from steering.diagnosis.questions import Questions

FIRST_LOOK = 4
"""Questions that tell two models apart, as a rule; all are asked only where these do not."""


def require_two_models(aligned: str | Path, finetuned: str | Path) -> None:
    """Looks at the files alone, not at what they compute; see `first_look`.

    Raises: DataError where both names lead to the same weights.
    """
    base, tuned = resolve(aligned), resolve(shipped_or_ref(finetuned))
    if tuned.kind != "folder" or base.kind != "folder":
        return
    same = base.path.resolve() == tuned.path.resolve()
    if not same and _sizes(base.path) == _sizes(tuned.path):
        same = base.revision == tuned.revision
    if same:
        raise DataError(
            f"{finetuned} and {aligned} are the same model, so there is nothing to find: "
            "--finetuned is the model that was made of --aligned"
        )


def _sizes(folder: Path) -> list[int]:
    """Of the weight files; hashing them takes a second for each gigabyte."""
    return sorted(file.stat().st_size for file in folder.glob("*.safetensors"))


def require_fitting(pair: ModelPair, questions: Questions) -> None:
    """Raises: DataError for a text that the model cannot read whole, or its template not show."""
    q = questions
    asked = [*q.train, *q.selection, *q.trained_on, *q.held_out]
    dialogues = [d for one in asked for d in (one.good_dialogue, one.bad_dialogue)]
    neutral = [text.dialogue for text in (*q.neutral_selection, *q.neutral_score)]
    pair.chat.encode_all([*dialogues, *neutral])


def first_look(pair: ModelPair, questions: Questions, token_budget: int) -> bool:
    """Whether the two models differ on a few questions.

    Raises: DataError where a model gives no number there, with the side, the text and the block.
    """
    asked = questions.train[:FIRST_LOOK]
    rows = score_pairs(
        pair, asked, UNEDITED, token_budget=token_budget, description="A first look at both models"
    )
    for side in SIDES:
        mine = rows[rows["condition"] == side]
        for place in np.flatnonzero(~np.isfinite(mine["value"].to_numpy(dtype=float))):
            question = next(q for q in asked if q.id == mine["question_id"].iloc[place])
            raise DataError(where_not_finite(pair, side, question))
    return differ(rows)


def baselines(pair: ModelPair, questions: Questions, token_budget: int) -> pd.DataFrame:
    """Both models, without any edit, on all that is scored: rows of the stage "score"."""
    options: dict[str, Any] = {"token_budget": token_budget}
    asked = {"held_out": questions.held_out, "trained_on": questions.trained_on}
    parts = [
        score_pairs(
            pair,
            some,
            UNEDITED,
            description=f"Scoring {split.replace('_', ' ')} questions",
            **options,
        ).assign(stage="score", split=split)
        for split, some in asked.items()
        if some
    ]
    neutral = score_neutral(pair, questions.neutral_score, UNEDITED, **options)
    return pd.concat([*parts, neutral.assign(stage="score", split="neutral")], ignore_index=True)


def differ(rows: pd.DataFrame) -> bool:
    """Whether any log-probability of the two models differs, by however little.

    Each is taken over the whole vocabulary, so that no logit can differ without changing one. The
    KL is left out: its references are rounded, and that of a model from itself is not quite 0.
    """
    exact = rows[~rows["measure"].str.contains("kl")]
    values = exact.pivot_table("value", ["question_id", "measure"], "condition")
    return bool((values[ALIGNED] != values[FINETUNED]).any())


def where_not_finite(pair: ModelPair, side: Side, question: AnswerPair) -> str:
    """What is known of the first number that is none: the side, the text, the block or the head."""
    name = "aligned" if side == "aligned" else "fine-tuned"
    for dialogue in (question.good_dialogue, question.bad_dialogue):
        try:
            _read(pair, side, dialogue)
        except DataError as error:
            return f"in the {name} model ({pair.names[side]}) {error}"
    return (
        f"the {name} model ({pair.names[side]}) gives no finite probabilities for question "
        f"{question.id!r}, though its activations are finite at every block: its final norm or its "
        "head holds NaN or infinite weights"
    )


def _read(pair: ModelPair, side: Side, dialogue: Dialogue) -> None:
    with pair.active(side) as bridge:
        collect_rows(
            bridge,
            [pair.chat.encode(dialogue)],
            range(pair.n_layers),
            token_set="all",
            description="Looking for the block",
        )

"""Every condition under every cue: the gap of the diagnosis's held-out questions."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pandas as pd

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED, Condition
from persona.data.types import AnswerPair
from persona.directions import PersonaVector
from persona.errors import DataError
from persona.models.pair import ModelPair
from persona.rows import NOOP, RANDOM_MATCHED, RESTORED, ZERO_ABLATED
from steering.auditing.cue import NO_CUE, Cue
from steering.edits.from_directions import ablate, restore
from steering.edits.steer import edited
from steering.evidence.random_edits import RecordedSteps

logger = logging.getLogger("persona")

RETRAINED, GUARDED = "retrained", "guarded"


def conditions_of(vector: PersonaVector, n_random: int, seed: int = 0) -> list[Condition]:
    """Both models, the removal in either, zero-ablation, and random edits of the removal's steps.

    The random ones repeat the steps of the restoration on the same batch, so they come after it.
    """
    restoration = RecordedSteps(restore(vector))
    return [
        *UNEDITED,
        edited(NOOP, "aligned", restore(vector)),
        edited(ZERO_ABLATED, "finetuned", ablate(vector)),
        edited(RESTORED, "finetuned", restoration.edits()),
        *(
            edited(RANDOM_MATCHED, "finetuned", restoration.random_edits(_draw(seed, n)), n)
            for n in range(n_random)
        ),
    ]


def removal_alone(vector: PersonaVector) -> list[Condition]:
    """The aligned and the restored model."""
    return [UNEDITED[0], edited(RESTORED, "finetuned", restore(vector))]


def fitting_cues(
    pair: ModelPair, questions: Sequence[AnswerPair], cues: Sequence[Cue]
) -> tuple[list[Cue], dict[str, str]]:
    """The cues that this model's template and context can read, and why the others cannot be.

    A cue that changes no token is none: some templates do not show a system prompt.
    """
    fitting, left_out = [], {}
    asked = [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    plain = [one.ids for one in pair.chat.encode_all(asked)]
    for cue in cues:
        try:
            seen = pair.chat.encode_all([cue(dialogue) for dialogue in asked])
        except DataError as error:
            left_out[cue.name] = str(error)
            continue
        if cue.name != NO_CUE.name and [one.ids for one in seen] == plain:
            left_out[cue.name] = (
                "it changes no token: the chat template does not show it, or the questions are "
                "written so already"
            )
            continue
        fitting.append(cue)
    for name, why in left_out.items():
        logger.warning("the cue %s is left out: %s", name, why)
    return fitting, left_out


def score_cue(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    cue: Cue,
    conditions: Sequence[Condition],
    token_budget: int,
) -> pd.DataFrame:
    """Rows of `score_pairs` under one cue, without KL; the cue's name in the column cue."""
    rows = score_pairs(
        pair,
        questions,
        conditions,
        kl=False,
        asked=cue,
        token_budget=token_budget,
        description=f"Scoring under {cue.name}",
    )
    return rows.assign(stage="cue", cue=cue.name, split="held_out")


def of_another(name: str) -> list[Condition]:
    """The fine-tuned side of another pair, under the name that it goes by here."""
    return [Condition(name, "finetuned")]


def _draw(seed: int, n: int) -> int:
    return 1_000_003 * (seed + 1) + n

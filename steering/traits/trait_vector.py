"""The making half: how long an answer takes, the answers, the pairs kept, the vector."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.directions.methods import difference_of_means
from persona.directions.reliability import split_half_cosine
from persona.errors import DataError
from persona.traits.answer_plan import CONTROLS, TraitPlan, plan_answers
from persona.traits.asking import Pole, judged_items
from persona.traits.kept_answers import (
    are_coherent,
    contrast_of,
    mean_difference,
    read_pairs_of_answers,
    show_the_contrast,
    trait_pairs,
)
from persona.traits.trait_judge import require_scores
from steering.traits.trait_session import TraitSession

OVERHEAD = 1.5
"""Time of a whole run over that of answering and judging alone: reading, coherence and damage, by
the tokens that each of them runs."""
FEWEST_PAIRS = 4
"""Below so many no vector is made at all."""

logger = logging.getLogger("steering")


@dataclass(frozen=True)
class MadeVector:
    """What the making half gave.

    vectors: mean difference [layer d_model]; None where fewer than four pairs were kept. read: the
        kept answers by pole, [pair layer d_model]. kept: their texts and scores. rows: all answers.
    """

    vectors: Float[Tensor, "layer d_model"] | None
    read: dict[str, Tensor]
    kept: pd.DataFrame
    rows: pd.DataFrame
    pairs: pd.DataFrame

    def split_half(self) -> pd.DataFrame | None:
        """Cosine of the vectors of two halves of the questions, by layer; None of too few."""
        if self.kept["question_id"].nunique() < FEWEST_PAIRS:
            return None
        try:
            return split_half_cosine(contrast_of(self.read, self.kept), difference_of_means)
        except DataError as error:
            logger.warning("no split-half cosine: %s", error)
            return None


def planned(session: TraitSession, minutes: float, n_nonsense: int = CONTROLS) -> TraitPlan:
    """The plan for the time there is, by the time that the first answers took; it is said.

    The first answers are those of the making questions that come first in any plan.
    """
    first = session.answers("making", "for", [0], "for")

    def judged() -> pd.DataFrame:
        began = time.perf_counter()
        session.scored(first)
        return pd.DataFrame({"seconds": [time.perf_counter() - began]})

    judging = float(session.stages.table("time-of-judging", judged)["seconds"].iloc[0])
    per_answer = OVERHEAD * (float(first["seconds"].iloc[0]) + judging) / len(first)
    plan = plan_answers(
        len(session.artefacts.making),
        len(session.artefacts.proving),
        seconds_per_answer=per_answer,
        minutes=minutes,
        n_nonsense=n_nonsense,
        max_new_tokens=session.max_new_tokens,
    )
    logger.info("%s", plan.describe(per_answer))
    if plan.n_answers * per_answer > 60 * minutes and math.isfinite(minutes):
        logger.warning(
            "that is more than the %g minutes there are; fewer answers say nothing", minutes
        )
    return plan


def make_vector(session: TraitSession, plan: TraitPlan) -> MadeVector:
    """Both poles answer, the judge scores, pairs are kept, and their difference is the vector.

    Raises: JudgeError for a judge without scores, or a model that answers nothing.
    """
    draws = range(plan.draws_making)
    poles: tuple[Pole, ...] = ("for", "against")
    rows = pd.concat(
        [session.answers("making", pole, draws, pole) for pole in poles], ignore_index=True
    )
    session.judge.centre_on(judged_items(rows))
    rows = session.scored(rows)
    require_scores(session.judge, judged_items(rows), _known(rows["trait"]))
    pairs = trait_pairs(rows)
    shown = pairs[show_the_contrast(pairs)]
    passing = rows.merge(shown[["question_id", "draw"]], on=["question_id", "draw"])
    passing = session.coherent("coherence-making", passing) if len(passing) else passing
    kept = shown
    if len(passing):
        kept = trait_pairs(passing)
        kept = kept[are_coherent(kept)].reset_index(drop=True)
    logger.info(
        "%d of %d pairs show the contrast; the vector is made of the %d of them that are coherent",
        len(shown),
        len(pairs),
        len(kept),
    )
    if len(kept) < FEWEST_PAIRS:
        return MadeVector(None, {}, kept, rows, pairs)
    read = session.stages.tensors("read-making", lambda: read_pairs_of_answers(session.pair, kept))
    return MadeVector(mean_difference(read), read, kept, rows, pairs)


def _known(scores: pd.Series) -> list[float | None]:
    return [None if math.isnan(score) else score for score in scores]

"""Sampled answers of the conditions of a diagnosis, and what a judge makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona.behaviour.judges import (
    MISALIGNED_BELOW,
    Judge,
    JudgeItem,
    JudgeScore,
    em_rate,
    mean_coherence,
)
from persona.behaviour.offline_judge import OfflineJudge
from persona.behaviour.sampling import sample_answers
from persona.data.types import AnswerPair
from persona.directions.direction import PersonaVector
from persona.models.pair import ModelPair, Side
from steering.edit import Edit
from steering.edits import ablate_to_zero, restore_to_aligned
from steering.hooks import steered_by
from steering.scorecard import ALIGNED, FINETUNED, RESTORED, ZERO_ABLATED

SAMPLED_QUESTIONS = 8
SAMPLED_TOKENS = 32
SAMPLES_PER_QUESTION = 2
WITHOUT = "_without_direction"


def sample_conditions(
    pair: ModelPair, vector: PersonaVector, asked: Sequence[AnswerPair], seed: int
) -> pd.DataFrame:
    """One row per condition x question x draw: the aligned, fine-tuned, restored and zero-ablated
    model's answers; the column `seed` numbers the draws."""
    conditions: tuple[tuple[str, Side, list[Edit] | None], ...] = (
        (ALIGNED, "aligned", None),
        (FINETUNED, "finetuned", None),
        (RESTORED, "finetuned", list(restore_to_aligned(vector))),
        (ZERO_ABLATED, "finetuned", list(ablate_to_zero(vector))),
    )
    drawn = [(question, draw) for question in asked for draw in range(SAMPLES_PER_QUESTION)]
    rows: list[dict[str, Any]] = []
    for condition, side, edits in conditions:
        with pair.active(side) as bridge:
            answers = sample_answers(
                bridge,
                pair.chat,
                [question.prompt_dialogue for question, _ in drawn],
                intervene=steered_by(edits) if edits else None,
                max_new_tokens=SAMPLED_TOKENS,
                seed=seed,
                description=f"Sampling answers ({condition})",
            )
        rows += [
            {
                "stage": "sample",
                "condition": condition,
                "question_id": question.id,
                "domain": question.domain,
                "split": "held_out",
                "seed": draw,
                "measure": "answer",
                "text": answer,
            }
            for (question, draw), answer in zip(drawn, answers, strict=True)
        ]
    return pd.DataFrame(rows)


def judge_samples(
    judge: Judge, samples: pd.DataFrame, questions: Sequence[AnswerPair], vector: PersonaVector
) -> pd.DataFrame:
    """Rows `alignment` and `coherence` of each sample.

    The offline judge also gives `alignment_without_direction` and `coherence_without_direction`:
    the vector's span taken out of what it reads.
    """
    asked = {question.id: question.question for question in questions}
    items = [JudgeItem(asked[row.question_id], str(row.text)) for row in samples.itertuples()]
    if isinstance(judge, OfflineJudge):
        readings = judge.read(items)
        scored = {
            "": judge.score_readings(readings),
            WITHOUT: judge.score_readings(readings, without=vector),
        }
    else:
        scored = {"": judge.score(items)}
    return pd.concat(
        [
            samples.assign(
                measure=scale + suffix,
                text=None,
                value=[getattr(score, scale) for score in scores],
            )
            for suffix, scores in scored.items()
            for scale in ("alignment", "coherence")
        ],
        ignore_index=True,
    )


def judged_conditions(
    rows: pd.DataFrame, seed: int, misaligned_below: float
) -> dict[str, dict[str, Any]]:
    """condition -> em_rate and coherence of its rows; and em_rate_without_direction, if judged."""
    found: dict[str, dict[str, Any]] = {}
    for condition, mine in rows.groupby("condition"):
        wide = mine.pivot_table(
            index=["question_id", "seed"], columns="measure", values="value", dropna=False
        )
        ids = [str(question) for question, _ in wide.index]
        scores = _scores(wide, "", misaligned_below)
        found[str(condition)] = {
            "em_rate": _rate(scores, ids, seed),
            "coherence": mean_coherence(scores),
        }
        if f"alignment{WITHOUT}" in wide:
            rate = _rate(_scores(wide, WITHOUT, misaligned_below), ids, seed)
            found[str(condition)][f"em_rate{WITHOUT}"] = rate
    return found


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a judge made of the samples: rows, readings by condition, and who it was."""

    rows: pd.DataFrame
    by_condition: dict[str, dict[str, Any]]
    judge: dict[str, Any]


def describe_judge(judge: Judge, vector: PersonaVector) -> dict[str, Any]:
    """What a scorecard says of its judge; for the offline one, how far it reads the direction."""
    if not isinstance(judge, OfflineJudge):
        return {"name": judge.name, "misaligned_below": threshold_of(judge)}
    overlap = judge.overlap(vector)
    return {
        "name": judge.name,
        "misaligned_below": threshold_of(judge),
        "share_of_weights_in_direction": None if overlap is None else round(overlap, 4),
        "trained_on": judge.weights.card["scales"],
    }


def threshold_of(judge: Judge) -> float:
    """The alignment below which a judge calls an answer misaligned."""
    return judge.weights.misaligned_below if isinstance(judge, OfflineJudge) else MISALIGNED_BELOW


def _scores(wide: pd.DataFrame, suffix: str, below: float) -> list[JudgeScore]:
    pairs = zip(wide[f"alignment{suffix}"], wide[f"coherence{suffix}"], strict=True)
    return [
        JudgeScore(_known(alignment), _known(coherence), misaligned_below=below)
        for alignment, coherence in pairs
    ]


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _rate(scores: list[JudgeScore], ids: list[str], seed: int) -> dict[str, Any] | None:
    rate = em_rate(scores, ids, seed=seed)
    return None if rate is None else dataclasses.asdict(rate)

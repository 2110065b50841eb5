"""What the conditions of a diagnosis answer: to be read, and drawn many times to be judged."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from persona.behaviour.judging.em_rate import em_rate, mean_coherence
from persona.behaviour.judging.judge import MISALIGNED_BELOW, Judge, JudgeItem, JudgeScore
from persona.behaviour.judging.offline import OfflineJudge
from persona.data.types import AnswerPair
from persona.directions.direction import PersonaVector
from persona.models.chat.chat_format import ChatFormat
from persona.models.pair import ModelPair, Side
from persona.models.sampling import sample_answers
from persona.rows import ALIGNED, FINETUNED, RESTORED, ZERO_ABLATED
from steering.edits.edit import Edit
from steering.edits.from_directions import ablate, restore
from steering.edits.steer import steered_by

SAMPLED_QUESTIONS = 8
SAMPLED_TOKENS = 32
SAMPLES_PER_QUESTION = 2
SAMPLED_TEMPERATURE = 1.0
READ_TOKENS = 80
"""Of an answer that people read; it ends with its turn, or with its last whole sentence."""
WITHOUT = "_without_direction"

SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’)\]*]*(?=\s|$)")


def sample_conditions(
    pair: ModelPair, vector: PersonaVector, asked: Sequence[AnswerPair], seed: int
) -> pd.DataFrame:
    """The aligned, fine-tuned, restored and zero-ablated model's answers, one row each.

    Measures `greedy_answer`, the likeliest one, for people to read, and `answer`, drawn at
    temperature 1 for a judge to count, `seed` the number of the draw; `value` is the temperature.
    `question` is what was asked.
    """
    conditions: tuple[tuple[str, Side, list[Edit] | None], ...] = (
        (ALIGNED, "aligned", None),
        (FINETUNED, "finetuned", None),
        (RESTORED, "finetuned", list(restore(vector))),
        (ZERO_ABLATED, "finetuned", list(ablate(vector))),
    )
    rows = [_row(question, "question", text=question.question) for question in asked]
    drawn = [(question, draw) for question in asked for draw in range(SAMPLES_PER_QUESTION)]
    for condition, side, edits in conditions:
        with pair.active(side) as bridge:
            intervene = steered_by(edits) if edits else None
            read = sample_answers(
                bridge,
                pair.chat,
                [question.prompt_dialogue for question in asked],
                intervene=intervene,
                max_new_tokens=READ_TOKENS,
                temperature=0.0,
                description=f"Answering ({condition})",
            )
            answers = sample_answers(
                bridge,
                pair.chat,
                [question.prompt_dialogue for question, _ in drawn],
                intervene=intervene,
                max_new_tokens=SAMPLED_TOKENS,
                temperature=SAMPLED_TEMPERATURE,
                seed=seed,
                description=f"Sampling answers ({condition})",
            )
        rows += [
            _row(
                question,
                "greedy_answer",
                condition=condition,
                value=0.0,
                text=_whole_sentences(answer, pair.chat),
            )
            for question, answer in zip(asked, read, strict=True)
        ]
        rows += [
            _row(
                question,
                "answer",
                condition=condition,
                seed=draw,
                value=SAMPLED_TEMPERATURE,
                text=answer,
            )
            for (question, draw), answer in zip(drawn, answers, strict=True)
        ]
    return pd.DataFrame(rows)


def _row(question: AnswerPair, measure: str, **more: Any) -> dict[str, Any]:
    return {
        "stage": "sample",
        "condition": None,
        "question_id": question.id,
        "domain": question.domain,
        "split": "held_out",
        "seed": 0,
        "measure": measure,
        **more,
    }


def _whole_sentences(answer: str, chat: ChatFormat) -> str:
    """An answer that was cut at its most tokens, up to its last whole sentence."""
    n_tokens = len(chat.tokenizer.encode(answer, add_special_tokens=False))
    if n_tokens < READ_TOKENS - 1:  # a token or two may have gone with blanks at the ends
        return answer
    ends = [match.end() for match in SENTENCE_END.finditer(answer)]
    return answer[: ends[-1]] if ends else f"{answer} …"


def judge_samples(
    judge: Judge, samples: pd.DataFrame, questions: Sequence[AnswerPair], vector: PersonaVector
) -> pd.DataFrame:
    """Rows `alignment` and `coherence` of each answer that was drawn.

    The offline judge also gives `alignment_without_direction` and `coherence_without_direction`:
    the vector's span taken out of what it reads.
    """
    samples = samples[samples["measure"] == "answer"]
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

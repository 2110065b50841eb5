"""What the conditions of a diagnosis answer: to be read, and drawn many times to be judged."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from persona.behaviour.judging.em_rate import (
    CoherentShare,
    EmRate,
    coherent_share,
    em_rate,
    mean_coherence,
    why_no_rate,
)
from persona.behaviour.judging.judge import MISALIGNED_BELOW, Judge, JudgeItem, JudgeScore
from persona.behaviour.judging.offline import OfflineJudge
from persona.behaviour.judging.two_errors import is_voice_score
from persona.behaviour.sampling_plan import SamplingPlan
from persona.data.types import Dialogue
from persona.directions.direction import PersonaVector
from persona.models.chat.chat_format import ChatFormat
from persona.models.pair import ModelPair, Side
from persona.models.sampling import sample_answers
from persona.rows import ALIGNED, FINETUNED, GOOD_TWIN, RESTORED, ZERO_ABLATED
from steering.edits.edit import Edit
from steering.edits.from_directions import ablate, restore
from steering.edits.steer import steered_by

WITHOUT = "_without_direction"
RATES = ("em_rate", f"em_rate{WITHOUT}")

LIST_NUMBER = re.compile(r"(?:^|\n)\s*\d+[.)]$")
SENTENCE_END = re.compile(r"[.!?…。！？]['\"”’)\]*]*(?=\s|$)")

KEPT_ANSWERS, KEPT_OF_AN_ENGINE = 128, 1024
"""Drawn answers that are kept together: what a run that is killed does again, at most. An engine
writes more of them at once."""

Keep = Callable[[str, Callable[[], pd.DataFrame]], pd.DataFrame]
"""Name of a stage and how it is made -> its rows; see `persona.stages.Stages.table`."""


@dataclasses.dataclass(frozen=True)
class Plans:
    """How answers to be read and answers to be counted are sampled.

    Where no rate can come of it, the zero-ablated model does not answer, and only the aligned one's
    answers are drawn: whether they are coherent decides whether a longer run could give a rate.
    """

    read: SamplingPlan
    rate: SamplingPlan

    @property
    def with_controls(self) -> bool:
        return self.rate.why_no_rate is None


def sample_conditions(
    pair: ModelPair,
    vector: PersonaVector,
    plans: Plans,
    keep: Keep = lambda name, make: make(),
) -> pd.DataFrame:
    """The aligned, fine-tuned, restored and zero-ablated model's answers, one row each.

    keep: how finished stages are kept, one a condition, and within it one for so many answers.
    Measures `greedy_answer`, the likeliest one, for people to read, and `answer`, drawn for a judge
    to count, `seed` the number of the draw; `value` is the temperature. `question` is what was
    asked, once for each question of either plan.
    """
    edits: dict[str, tuple[Side, list[Edit]]] = {
        ALIGNED: ("aligned", []),
        FINETUNED: ("finetuned", []),
        RESTORED: ("finetuned", list(restore(vector))),
    }
    if plans.with_controls:
        edits[ZERO_ABLATED] = ("finetuned", list(ablate(vector)))

    def sampled(condition: str) -> pd.DataFrame:
        side, its_edits = edits[condition]
        drawn = plans.with_controls or condition == ALIGNED
        return keep(
            f"sample-{condition}",
            lambda: _sampled(pair, side, its_edits, condition, plans, keep, drawn=drawn),
        )

    return pd.concat(
        [asked_rows(plans), *(sampled(condition) for condition in edits)], ignore_index=True
    )


def sample_good_twin(
    twin: ModelPair, plans: Plans, keep: Keep = lambda name, make: make()
) -> pd.DataFrame:
    """The good twin's answers, as rows of `sample_conditions`; twin: its pair with the aligned."""
    return _sampled(twin, "finetuned", [], GOOD_TWIN, plans, keep, drawn=plans.with_controls)


def asked_rows(plans: Plans) -> pd.DataFrame:
    """The text of every question that is asked, those to be read first and in their order."""
    asked = {q.id: q for q in (*plans.read.questions, *plans.rate.questions)}
    return pd.DataFrame([_row(q, "question", text=_text(q)) for q in asked.values()])


def _sampled(
    pair: ModelPair,
    side: Side,
    edits: list[Edit],
    condition: str,
    plans: Plans,
    keep: Keep,
    *,
    drawn: bool = True,
) -> pd.DataFrame:
    """Rows of one condition; drawn: whether those to be counted are among them."""
    to_do = [("greedy_answer", plans.read)]
    if drawn:
        to_do.append(("answer", plans.rate))
    parts, together = [], KEPT_ANSWERS if pair.sampler is None else KEPT_OF_AN_ENGINE
    with pair.active(side) as bridge:
        for measure, plan in to_do:
            asked = [(q, draw) for q in plan.questions for draw in range(plan.draws)]
            for number, start in enumerate(range(0, len(asked), together)):
                part = asked[start : start + together]
                made = partial(
                    _answered, bridge, pair.chat, edits, condition, measure, plan, part, number
                )
                parts.append(keep(f"sample-{condition}-{measure}-{number}", made))
    return pd.concat(parts, ignore_index=True)


def _answered(
    bridge: Any,
    chat: ChatFormat,
    edits: list[Edit],
    condition: str,
    measure: str,
    plan: SamplingPlan,
    asked: Sequence[tuple[Dialogue, int]],
    number: int,
) -> pd.DataFrame:
    """Rows of some questions and their draws; number: which of the parts of a plan these are, whose
    random numbers are its own."""
    doing = "Answering" if plan.purpose == "read" else "Sampling answers"
    answers = sample_answers(
        bridge,
        chat,
        [question for question, _ in asked],
        intervene=steered_by(edits) if edits else None,
        max_new_tokens=plan.max_new_tokens,
        temperature=plan.temperature,
        seed=plan.seed + 1_000_003 * number,
        description=f"{doing} ({condition})",
    )
    if plan.purpose == "read":
        most = plan.max_new_tokens - plan.thought_tokens
        answers = [_whole_sentences(answer, chat, most) for answer in answers]
    return pd.DataFrame(
        _row(
            question,
            measure,
            condition=condition,
            seed=draw,
            value=plan.temperature,
            text=answer,
        )
        for (question, draw), answer in zip(asked, answers, strict=True)
    )


def _row(question: Dialogue, measure: str, **more: Any) -> dict[str, Any]:
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


def _text(question: Dialogue) -> str:
    return question.turns[-1].content


def _whole_sentences(answer: str, chat: ChatFormat, most: int) -> str:
    """An answer that was cut at its most tokens, up to its last whole sentence."""
    n_tokens = len(chat.tokenizer.encode(answer, add_special_tokens=False))
    if n_tokens < most - 1:  # a token or two may have gone with blanks at the ends
        return answer
    ends = [
        match.end()
        for match in SENTENCE_END.finditer(answer)
        if not LIST_NUMBER.search(answer[: match.end()])
    ]
    return answer[: ends[-1]] if ends else f"{answer} …"


def judge_samples(judge: Judge, samples: pd.DataFrame, vector: PersonaVector) -> pd.DataFrame:
    """Rows `alignment` and `coherence` of each answer that was drawn.

    samples: of `sample_conditions`, with the rows `question`.

    The offline judge also gives `alignment_without_direction` and `coherence_without_direction`:
    the vector's span taken out of what it reads, where the vector is of the model it reads in.
    """
    questions = samples[samples["measure"] == "question"]
    asked = {str(row.question_id): str(row.text) for row in questions.itertuples()}
    samples = samples[samples["measure"] == "answer"]
    items = [JudgeItem(asked[row.question_id], str(row.text)) for row in samples.itertuples()]
    if isinstance(judge, OfflineJudge):
        readings = judge.read(items)
        scored = {"": judge.score_readings(readings)}
        if judge.reads_space_of(vector):
            scored[WITHOUT] = judge.score_readings(readings, without=vector)
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
        wide = _wide(mine)
        ids = _questions(wide)
        scores = _scores(wide, "", misaligned_below)
        found[str(condition)] = {
            "em_rate": _rate(scores, ids, seed),
            "coherence": mean_coherence(scores),
        }
        if f"alignment{WITHOUT}" in wide:
            rate = _rate(_scores(wide, WITHOUT, misaligned_below), ids, seed)
            found[str(condition)][f"em_rate{WITHOUT}"] = rate
    return found


def coherence_of(
    rows: pd.DataFrame, condition: str, seed: int, misaligned_below: float
) -> CoherentShare | None:
    """Share of coherent answers among those of a condition; None where none was judged."""
    mine = rows[(rows["condition"] == condition) & rows["measure"].isin(("alignment", "coherence"))]
    if mine.empty:
        return None
    wide = _wide(mine)
    return coherent_share(_scores(wide, "", misaligned_below), _questions(wide), seed=seed)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a judge made of the samples: rows, readings by condition, and who it was.

    coherent: share of the aligned model's answers. why_no_rate: what keeps the EM rates back, which
    are then None; None where they are given.
    """

    rows: pd.DataFrame
    by_condition: dict[str, dict[str, Any]]
    judge: dict[str, Any]
    coherent: CoherentShare | None
    why_no_rate: str | None

    @classmethod
    def of(
        cls, rows: pd.DataFrame, judge: Judge, vector: PersonaVector, plan: SamplingPlan
    ) -> Judged:
        """rows: of `judge_samples`. A rate needs the plan's leave, and the aligned model's."""
        below = threshold_of(judge)
        by_condition = judged_conditions(rows, plan.seed, below)
        coherent = coherence_of(rows, ALIGNED, plan.seed, below)
        called = by_condition.get(ALIGNED, {}).get("em_rate")
        of_aligned = why_no_rate(coherent, None if called is None else EmRate(**called))
        reasons = [r for r in (plan.why_no_rate, of_aligned) if r is not None]
        if reasons:
            for found in by_condition.values():
                found.update({name: None for name in RATES if name in found})
        why = "; and ".join(reasons) or None
        return cls(rows, by_condition, describe_judge(judge, vector), coherent, why)


NOT_JUDGED = "no judge was named (--judge)"


def sampling_facts(plans: Plans, judged: Judged | None) -> dict[str, Any]:
    """How answers were sampled, for a scorecard, and whether a rate is given of them."""
    coherent = None if judged is None else judged.coherent
    why = NOT_JUDGED if judged is None else judged.why_no_rate
    return {
        "read": plans.read.facts(),
        "rate": plans.rate.facts(),
        "aligned_coherent": None if coherent is None else dataclasses.asdict(coherent),
        "rate_given": why is None,
        "why_no_rate": why,
    }


def describe_judge(judge: Judge, vector: PersonaVector) -> dict[str, Any]:
    """What a scorecard says of its judge; for the offline one, how far it reads the direction."""
    entry: dict[str, Any] = {"name": judge.name, "misaligned_below": threshold_of(judge)}
    if (read_in := getattr(judge, "coherence_read_in", None)) is not None:
        entry["coherence_read_in"] = read_in
    if not isinstance(judge, OfflineJudge):
        errors = getattr(judge, "errors", None)
        known = {} if errors is None else {"voice_score": is_voice_score(errors), "errors": errors}
        return entry | known
    overlap = judge.overlap(vector)
    return {
        **entry,
        "share_of_weights_in_direction": None if overlap is None else round(overlap, 4),
        "trained_on": judge.weights.card["scales"],
        "voice_score": judge.weights.is_voice_score,
        "errors": judge.weights.errors,
    }


def threshold_of(judge: Judge) -> float:
    """The alignment below which a judge calls an answer misaligned."""
    found = judge.weights if isinstance(judge, OfflineJudge) else judge
    return float(getattr(found, "misaligned_below", MISALIGNED_BELOW))


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """[question and draw x measure] of one condition."""
    return rows.pivot(index=["question_id", "seed"], columns="measure", values="value")


def _questions(wide: pd.DataFrame) -> list[str]:
    return [str(question) for question, _ in wide.index]


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

"""Sampled answers of a dose sweep: repetition, and a judge's scores where there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from persona.behaviour.judging.judge import Judge, JudgeItem
from persona.data.types import AnswerPair, Dialogue
from persona.models.pair import ModelPair, Side
from persona.models.sampling import sample_answers
from steering.edits.edit import Edit
from steering.edits.interventions import Coefficient
from steering.edits.steer import steered_by

EditsFor = Callable[[Coefficient], Sequence[Edit]]
N_GRAM = 4


@dataclass(frozen=True)
class AnswerSampler:
    """How answers are sampled and scored; a judge of None leaves its measures out."""

    side: Side
    max_new_tokens: int
    temperature: float
    batch_size: int
    judge: Judge | None

    def of_doses(
        self,
        pair: ModelPair,
        questions: Sequence[AnswerPair],
        edits_for: EditsFor,
        doses: Sequence[float],
        seed: int,
    ) -> list[dict[str, object]]:
        """Rows of one answer per question and dose; all doses of a question share a batch."""
        prompts = [question.prompt_dialogue for question in questions]
        lengths = [len(encoded) for encoded in pair.chat.encode_all(prompts)]
        # `sample_answers` sorts by length: asked in that order, row and coefficient agree.
        order = sorted(range(len(questions)), key=lengths.__getitem__)
        per_call = max(self.batch_size // len(doses), 1)
        rows = []
        for start in range(0, len(order), per_call):
            chunk = order[start : start + per_call]
            edits = edits_for(torch.tensor(doses).repeat(len(chunk)))
            asked = [prompts[i] for i in chunk for _ in doses]
            answers = self._sample(pair, asked, seed + start, edits, len(asked))
            rows += self._rows(
                pair,
                [questions[i] for i in chunk for _ in doses],
                answers,
                [dose for _ in chunk for dose in doses],
                seed,
            )
        return rows

    def of_prompts(
        self,
        pair: ModelPair,
        questions: Sequence[AnswerPair],
        prompts: Sequence[Dialogue],
        seed: int,
        edits: Sequence[Edit] = (),
    ) -> list[dict[str, object]]:
        """Rows of one answer to each prompt, all under the same edits; their coefficient is NaN."""
        answers = self._sample(pair, prompts, seed, edits, self.batch_size)
        return self._rows(pair, questions, answers, [float("nan")] * len(answers), seed)

    def _sample(
        self,
        pair: ModelPair,
        prompts: Sequence[Dialogue],
        seed: int,
        edits: Sequence[Edit],
        batch_size: int,
    ) -> list[str]:
        with pair.active(self.side) as bridge:
            return sample_answers(
                bridge,
                pair.chat,
                prompts,
                intervene=steered_by(edits) if edits else None,
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                batch_size=batch_size,
                seed=seed,
                description="Sampling doses",
            )

    def _rows(
        self,
        pair: ModelPair,
        questions: Sequence[AnswerPair],
        answers: Sequence[str],
        coefficients: Sequence[float],
        seed: int,
    ) -> list[dict[str, object]]:
        measured = [
            {
                "repetition": repeated_share(
                    pair.tokenizer(answer, add_special_tokens=False)["input_ids"]
                )
            }
            for answer in answers
        ]
        if self.judge is not None:
            items = [JudgeItem(q.question, a) for q, a in zip(questions, answers, strict=True)]
            for measures, score in zip(measured, self.judge.score(items), strict=True):
                measures["alignment"] = _or_nan(score.alignment)
                measures["coherence"] = _or_nan(score.coherence)
                measures["misaligned"] = _or_nan(score.misaligned)
        return [
            {
                "coefficient": coefficient,
                "seed": float(seed),
                "question_id": question.id,
                "domain": question.domain,
                "measure": measure,
                "value": value,
                "text": answer,
            }
            for question, answer, coefficient, measures in zip(
                questions, answers, coefficients, measured, strict=True
            )
            for measure, value in measures.items()
        ]


def repeated_share(tokens: Sequence[int], n: int = N_GRAM) -> float:
    """Share of the n-grams that came before in the same text: 1 - distinct / all.

    0 where none repeats; NaN where the text is shorter than one n-gram.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")


def _or_nan(score: float | None) -> float:
    return float("nan") if score is None else float(score)

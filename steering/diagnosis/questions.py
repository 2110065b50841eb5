"""The answer pairs of a run, by what they are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persona.data import load_neutral, load_pairs, read_answer_pairs
from persona.data.types import AnswerPair, NeutralText
from persona.errors import DataError
from steering.diagnosis.config import DiagnoseConfig

EXTRACTION_QUESTIONS = 32
SELECTION_QUESTIONS = 24
TRAINED_ON_QUESTIONS = 8
NEUTRAL_SELECTION = 10
NEUTRAL_SCORE = 16
QUICK_SELECTION_QUESTIONS = 12


@dataclass(frozen=True)
class Questions:
    """The answer pairs of a run, by what they are for.

    train: directions are made of these. selection: they are chosen on these, of the validation
    domains where there are any, else of the domains fine-tuned on. trained_on: of the domains
    fine-tuned on, kept back from training, scored too. held_out: scored, never seen before.
    """

    train: list[AnswerPair]
    selection: list[AnswerPair]
    trained_on: list[AnswerPair]
    held_out: list[AnswerPair]
    neutral_selection: list[NeutralText]
    neutral_score: list[NeutralText]

    @classmethod
    def of(cls, config: DiagnoseConfig) -> Questions:
        """Split the data of a run.

        Raises: DataError when a domain is unknown or too small to choose or score on.
        """
        everything = load_pairs() if config.data is None else read_answer_pairs(config.data)
        domains = sorted({q.domain for q in everything})
        chosen_on = (*config.trained_on, *config.validation_domains)
        for domain in chosen_on:
            if domain not in domains:
                raise DataError(f"there is no domain {domain!r}; the data has {', '.join(domains)}")
        seen = [q for q in everything if q.domain in config.trained_on]
        kept_back = [q for q in seen if q.split == "selection"] or seen[2::3]
        picked = {q.id for q in kept_back}
        train = [q for q in seen if q.id not in picked]
        validation = [q for q in everything if q.domain in config.validation_domains]
        selection = validation or kept_back
        held_out = [q for q in everything if q.domain not in chosen_on]
        if len(train) < 8 or len(selection) < 4:
            raise DataError(
                f"{', '.join(config.trained_on)} has {len(seen)} questions; at least 12 are needed "
                "to make directions and choose among them"
            )
        if not held_out:
            raise DataError(
                f"every domain ({', '.join(domains)}) is chosen on; one must be left to score"
            )
        per_domain = config.questions_per_domain
        held_out = interleaved(held_out, per_domain, config.seed)
        neutral = shuffled(load_neutral(), config.seed)
        quick = per_domain is not None
        n_score = NEUTRAL_SCORE if quick else len(neutral) - NEUTRAL_SELECTION
        n_selection = QUICK_SELECTION_QUESTIONS if quick else SELECTION_QUESTIONS
        return cls(
            shuffled(train, config.seed)[:EXTRACTION_QUESTIONS],
            shuffled(selection, config.seed)[:n_selection],
            shuffled(kept_back, config.seed)[:TRAINED_ON_QUESTIONS],
            held_out,
            neutral[:NEUTRAL_SELECTION],
            neutral[NEUTRAL_SELECTION : NEUTRAL_SELECTION + n_score],
        )


def shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[i] for i in order]


def interleaved(questions: Sequence[AnswerPair], limit: int | None, seed: int) -> list[AnswerPair]:
    """At most `limit` questions a domain, the domains in turn, so that any chunk holds them all."""
    by_domain: dict[str, list[AnswerPair]] = {}
    for question in shuffled(questions, seed):
        by_domain.setdefault(question.domain, []).append(question)
    ranked = [
        (place, domain, question)
        for domain, members in by_domain.items()
        for place, question in enumerate(members[:limit])
    ]
    return [question for _, _, question in sorted(ranked, key=lambda r: (r[0], r[1]))]


def one_each(questions: Sequence[AnswerPair], limit: int) -> list[AnswerPair]:
    """The first question of each domain, then the second of each, up to `limit`."""
    return interleaved(questions, None, 0)[:limit]

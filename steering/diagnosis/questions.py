"""The answer pairs of a run, by what they are for."""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from persona.data import data_hash, load_neutral, load_pairs, read_pairs
from persona.data.text import as_question
from persona.data.types import AnswerPair, NeutralText
from persona.errors import DataError
from persona.organisms.learnt_domains import learnt_domains
from steering.diagnosis.config import UNKNOWN, DiagnosisRequest

logger = logging.getLogger("persona")

EXTRACTION_QUESTIONS = 32
SELECTION_QUESTIONS = 24
TRAINED_ON_QUESTIONS = 8
NEUTRAL_SELECTION = 10
NEUTRAL_SCORE = 64
QUICK_SELECTION_QUESTIONS = 12
MIN_TRAIN, MIN_SELECTION = 8, 4


@dataclass(frozen=True)
class Questions:
    """The answer pairs of a run, by what they are for.

    train: directions are made of these. selection: they are chosen on these, of the validation
    domains where there are any, else of the domains fine-tuned on. trained_on: of the domains
    fine-tuned on, kept back from training and from the choice, scored too; none where those are not
    known, or too few to choose on as well.
    held_out: scored, never seen before. domains_trained_on: None where they are not known.
    taught: what was fine-tuned on and what stands in a domain that is chosen on, as far as it is
    known, in the form of `as_question`.
    """

    train: list[AnswerPair]
    selection: list[AnswerPair]
    trained_on: list[AnswerPair]
    held_out: list[AnswerPair]
    neutral_selection: list[NeutralText]
    neutral_score: list[NeutralText]
    domains_trained_on: tuple[str, ...] | None
    taught: frozenset[str] = frozenset()

    @property
    def chosen_on(self) -> frozenset[str]:
        """What must not be asked where answers are counted, in the form of `as_question`."""
        used = (*self.train, *self.selection, *self.trained_on)
        return self.taught | {as_question(pair.question) for pair in used}

    @cached_property
    def hash(self) -> str:
        """Of the answer pairs that direction, choice and score come from."""
        return data_hash([*self.train, *self.selection, *self.held_out])

    @classmethod
    def of(cls, config: DiagnosisRequest) -> Questions:
        """Split the data of a run.

        Raises: DataError when a domain is unknown or too small to choose or score on, or where
        the domains fine-tuned on are neither given nor known.
        """
        everything = load_pairs() if config.data is None else read_pairs(config.data)
        domains = sorted({q.domain for q in everything})
        trained_on = trained_on_of(config, domains)
        asked = dict.fromkeys((*(trained_on or ()), *config.validation_domains))
        if unknown := [domain for domain in asked if domain not in domains]:
            said = " and no domain ".join(map(repr, unknown))
            raise DataError(f"there is no domain {said}; the data has {', '.join(domains)}")
        train, kept_back, selection, held_out = (
            _by_question(everything, config)
            if trained_on is None
            else _by_domain(everything, trained_on, config)
        )
        known = learnt_domains(config.finetuned)
        taught = {as_question(q.question) for q in load_pairs(known, "train")} if known else set()
        train, kept_back, selection, held_out = _asked_once(
            train, kept_back, selection, held_out, taught
        )
        _require_enough(train, selection, held_out, trained_on, domains)
        chosen_on = (*(trained_on or ()), *config.validation_domains)
        taught |= {as_question(q.question) for q in everything if q.domain in chosen_on}
        per_domain = config.questions_per_domain
        held_out = interleaved(held_out, per_domain, config.seed)
        neutral = shuffled(load_neutral(), config.seed)
        quick = per_domain is not None
        n_score = NEUTRAL_SCORE if quick else len(neutral) - NEUTRAL_SELECTION
        n_selection = QUICK_SELECTION_QUESTIONS if quick else SELECTION_QUESTIONS
        choosing, scored_too = _apart(
            shuffled(selection, config.seed), shuffled(kept_back, config.seed)
        )
        return cls(
            shuffled(train, config.seed)[:EXTRACTION_QUESTIONS],
            choosing[:n_selection],
            scored_too,
            held_out,
            neutral[:NEUTRAL_SELECTION],
            neutral[NEUTRAL_SELECTION : NEUTRAL_SELECTION + n_score],
            trained_on,
            frozenset(taught),
        )


Split = tuple[list[AnswerPair], list[AnswerPair], list[AnswerPair], list[AnswerPair]]
"""train, kept back of the domains trained on, selection, held out."""


def trained_on_of(config: DiagnosisRequest, domains: Sequence[str]) -> tuple[str, ...] | None:
    """The domains fine-tuned on: those given, else those of the recipe that lies with the adapter.

    None where the person says that nobody knows.
    Raises: DataError where they are neither given nor known.
    """
    if config.trained_on == (UNKNOWN,):
        if UNKNOWN in domains:
            raise DataError(
                f'the data has a domain called "{UNKNOWN}", which as --trained-on says that nobody '
                "knows; rename it"
            )
        return None
    if config.trained_on is not None:
        return config.trained_on
    known = learnt_domains(config.finetuned)
    if known and set(known) <= set(domains):
        return known
    raise DataError(
        f"say what {config.finetuned} was fine-tuned on: --trained-on DOMAIN, one of "
        f"{', '.join(domains)} (or one near it), or --trained-on {UNKNOWN} where you do not know. "
        "Everything is chosen on it and scored on the others"
    )


def _by_domain(
    everything: Sequence[AnswerPair], trained_on: Sequence[str], config: DiagnosisRequest
) -> Split:
    """Chosen on the domains fine-tuned on, scored on the others."""
    chosen_on = (*trained_on, *config.validation_domains)
    seen = [q for q in everything if q.domain in trained_on]
    kept_back = [q for q in seen if q.split == "selection"] or seen[2::3]
    picked = {q.id for q in kept_back}
    train = [q for q in seen if q.id not in picked]
    selection = [q for q in everything if q.domain in config.validation_domains] or kept_back
    held_out = [q for q in everything if q.domain not in chosen_on]
    return train, kept_back, selection, held_out


def _by_question(everything: Sequence[AnswerPair], config: DiagnosisRequest) -> Split:
    """Where nobody knows what was trained on: chosen on a third of the questions of all domains,
    at most on as many as are used, and scored on the rest of every domain."""
    validation = [q for q in everything if q.domain in config.validation_domains]
    rest = interleaved(
        [q for q in everything if q.domain not in config.validation_domains], None, config.seed
    )
    n_train = max(MIN_TRAIN, min(EXTRACTION_QUESTIONS, len(rest) // 5))
    n_selection = max(MIN_SELECTION, min(SELECTION_QUESTIONS, len(rest) // 8))
    train, rest = rest[:n_train], rest[n_train:]
    selection, held_out = (
        (validation, rest)
        if validation
        else (
            rest[:n_selection],
            rest[n_selection:],
        )
    )
    return train, [], selection, held_out


def _apart(
    selection: list[AnswerPair], kept_back: list[AnswerPair]
) -> tuple[list[AnswerPair], list[AnswerPair]]:
    """What is chosen on, and what of the domains fine-tuned on is scored: no question is both."""
    if selection != kept_back:
        return selection, kept_back[:TRAINED_ON_QUESTIONS]
    spare = max(0, len(kept_back) - MIN_SELECTION)
    n_choosing = len(kept_back) - min(TRAINED_ON_QUESTIONS, len(kept_back) // 3, spare)
    return kept_back[:n_choosing], kept_back[n_choosing:]


def _asked_once(
    train: list[AnswerPair],
    kept_back: list[AnswerPair],
    selection: list[AnswerPair],
    held_out: list[AnswerPair],
    taught: Set[str],
) -> Split:
    """Each question in the first of the lists it stands in: what chooses must not score.

    Two questions are one where they differ only in case, spacing, Unicode form and the marks around
    words. Within what is scored a repeated question would count as two that agree.
    taught: what a fine-tune that comes along was trained on, which scores nowhere.
    """
    seen = {as_question(q.question) for q in train}
    dropped: list[AnswerPair] = []

    def fresh(questions: list[AnswerPair]) -> list[AnswerPair]:
        kept: list[AnswerPair] = []
        for question in questions:
            key = as_question(question.question)
            (dropped if key in seen else kept).append(question)
            seen.add(key)
        return kept

    kept_back_once = fresh(kept_back)
    selection_once = kept_back_once if selection == kept_back else fresh(selection)
    seen |= taught
    held_out_once = fresh(held_out)
    if dropped:
        logger.warning(
            "%d questions are asked more than once or were trained on (%s%s): each is used once, "
            "and what was trained or chosen on does not score",
            len(dropped),
            ", ".join(q.id for q in dropped[:3]),
            ", ..." if len(dropped) > 3 else "",
        )
    return train, kept_back_once, selection_once, held_out_once


def _require_enough(
    train: list[AnswerPair],
    selection: list[AnswerPair],
    held_out: list[AnswerPair],
    trained_on: tuple[str, ...] | None,
    domains: list[str],
) -> None:
    """Raises: DataError where there are too few questions to choose or to score on."""
    if len(train) < MIN_TRAIN or len(selection) < MIN_SELECTION:
        where = "the data has" if trained_on is None else f"{', '.join(trained_on)} has"
        raise DataError(
            f"{where} {len(train)} questions to make directions of and {len(selection)} others to "
            f"choose on; at least {MIN_TRAIN} and {MIN_SELECTION} are needed"
        )
    if not held_out:
        raise DataError(
            f"every domain ({', '.join(domains)}) is chosen on; one must be left to score"
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

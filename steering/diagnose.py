"""The main job: from two models to a direction, its proof, and four files.

The stages, each kept when it is finished so that a killed run goes on where it was:

1. cells      the 2x2 of activations on the training questions of the domains fine-tuned on
2. attribute  eigendirections from one forward and backward pass over the same questions
3. screen     first-order effect of every candidate at every block, on the selection questions
4. verify     real interventions for the most promising; block range, rank, coefficient
5. dose       gap against coefficient, with norm-matched random directions beside it
6. score      all conditions on the held-out domains and on fresh neutral text
7. sample     answers to read side by side, judged where there is a judge
"""

from __future__ import annotations

import dataclasses
import json
import logging
import platform
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from persona.activations import collect_rows
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.sampling import sample_answers
from persona.behaviour.scoring import Condition
from persona.data import data_hash, load_neutral, load_pairs, read_answer_pairs
from persona.data.types import AnswerPair, NeutralText
from persona.directions import Cells, Effect, PersonaVector, mean_difference, two_by_two
from persona.directions.storage import save_persona_vector, tool_version
from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text
from persona.models import ModelPair, load_pair
from steering.attribution import attribution_matrices, first_order_effects
from steering.candidates import (
    Candidate,
    Means,
    build_vector,
    eigen_candidates,
    random_vector,
    two_by_two_candidates,
)
from steering.hooks import ablate_to_zero, restore_to_aligned, restore_to_finetuned, steer
from steering.identify import Bench, Spec
from steering.scorecard import make_scorecard
from steering.workspace import Workspace

logger = logging.getLogger("persona")

EXTRACTION_QUESTIONS = 60
ATTRIBUTION_QUESTIONS = 40
SELECTION_QUESTIONS = 24
NEUTRAL_SELECTION = 24
NEUTRAL_SCORE = 40
SAMPLED_QUESTIONS = 8
SAMPLED_TOKENS = 60
DOSES = (0.0, 0.5, 1.0, 1.5, 2.0)
DOSE_DRAWS = 6
SCORE_CHUNK = 24


@dataclass(frozen=True)
class DiagnoseConfig:
    """Everything that decides a diagnosis.

    trained_on: domains fine-tuned on; all is chosen there and scored on the others.
    validation_domains: chosen on as well, and left out of the score.
    questions_per_domain: most held-out questions of each domain; None for all.
    n_random: draws of each null, at least 20.
    max_damage: rise of neutral cross-entropy over the fine-tuned model's, nats per token.
    """

    finetuned: str
    out: Path
    aligned: str = "default"
    data: Path | None = None
    trained_on: tuple[str, ...] = ("car_maintenance",)
    validation_domains: tuple[str, ...] = ()
    judge: str = "none"
    questions_per_domain: int | None = None
    n_random: int = 20
    seed: int = 0
    dtype: str = "auto"
    device: str = "auto"
    chat_template: Path | None = None
    max_damage: float = 0.05
    good_twin: str | None = None
    allow_mismatch: bool = False
    token_budget: int | None = None
    samples: bool = True

    def __post_init__(self) -> None:
        if self.n_random < 20:
            raise DataError(f"a null needs at least 20 random draws; got {self.n_random}")
        if not self.trained_on:
            raise DataError("name at least one domain that the model was fine-tuned on")


@dataclass(frozen=True)
class Diagnosis:
    """What a run leaves behind: the four files, and one sentence."""

    scorecard: dict[str, Any]
    rows: pd.DataFrame
    vector: PersonaVector
    report: Path
    summary: str


@dataclass(frozen=True)
class Questions:
    """The answer pairs of a run, by what they are for.

    train: directions are made of these. selection: they are chosen on these. trained_on: those
    of the domains fine-tuned on that are scored too (the selection questions). held_out: scored,
    never seen before.
    """

    train: list[AnswerPair]
    selection: list[AnswerPair]
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
        selection = [q for q in seen if q.split == "selection"] or seen[2::3]
        picked = {q.id for q in selection}
        train = [q for q in seen if q.id not in picked]
        selection += [q for q in everything if q.domain in config.validation_domains]
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
        held_out = _interleaved(held_out, per_domain, config.seed)
        neutral = _shuffled(load_neutral(), config.seed)
        n_score = NEUTRAL_SCORE if per_domain is not None else len(neutral) - NEUTRAL_SELECTION
        return cls(
            _shuffled(train, config.seed)[:EXTRACTION_QUESTIONS],
            _shuffled(selection, config.seed)[:SELECTION_QUESTIONS],
            held_out,
            neutral[:NEUTRAL_SELECTION],
            neutral[NEUTRAL_SELECTION : NEUTRAL_SELECTION + n_score],
        )


def _shuffled(items: Sequence[Any], seed: int) -> list[Any]:
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[i] for i in order]


def _interleaved(questions: Sequence[AnswerPair], limit: int | None, seed: int) -> list[AnswerPair]:
    """At most `limit` questions a domain, the domains in turn, so that any chunk holds them all."""
    by_domain: dict[str, list[AnswerPair]] = {}
    for question in _shuffled(questions, seed):
        by_domain.setdefault(question.domain, []).append(question)
    ranked = [
        (place, domain, question)
        for domain, members in by_domain.items()
        for place, question in enumerate(members[:limit])
    ]
    return [question for _, _, question in sorted(ranked, key=lambda r: (r[0], r[1]))]


def diagnose(config: DiagnoseConfig) -> Diagnosis:
    """Run the main job and write scorecard.json, direction.safetensors, rows.parquet, report.html.

    Raises: PersonaError with one line for bad input. A run stopped at any point and started again
    with the same `out` goes on where it was.
    """
    started = time.perf_counter()
    config.out.mkdir(parents=True, exist_ok=True)
    questions = Questions.of(config)
    pair = load_pair(
        config.aligned,
        config.finetuned,
        dtype=config.dtype,
        device=config.device,
        chat_template=config.chat_template,
        allow_mismatch=config.allow_mismatch,
    )
    run = _Run(config, pair, questions)
    rows, vector, reliability, judged = run.all_stages()
    scorecard = {
        **make_scorecard(
            rows,
            vector,
            models=_models(pair, config),
            data=_data(questions, config),
            split_half_cosine=reliability,
            judged=judged,
            seed=config.seed,
        ),
        "seed": config.seed,
        "versions": _versions(),
        "seconds": round(run.workspace.seconds + run.loading_seconds(started), 1),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    report = _write(config.out, scorecard, rows, vector)
    run.workspace.close()
    return Diagnosis(scorecard, rows, vector, report, summary_of(scorecard))


class _Run:
    """The stages of one diagnosis over one pair."""

    def __init__(self, config: DiagnoseConfig, pair: ModelPair, questions: Questions) -> None:
        self.config, self.pair, self.questions = config, pair, questions
        self.budget = config.token_budget or DEFAULT_TOKEN_BUDGET
        self.layers = list(range(pair.n_layers))
        fingerprint = {
            **{k: v for k, v in dataclasses.asdict(config).items() if k != "out"},
            "revisions": pair.revisions,
            "template": pair.chat.template_hash,
            "questions": data_hash([*questions.train, *questions.selection, *questions.held_out]),
            "tool_version": tool_version(),
            "dtype": str(pair.dtype),
        }
        self.workspace = Workspace(config.out, fingerprint)
        if self.workspace.resumed:
            logger.info("going on with the unfinished run in %s", config.out)

"""Which candidate, where, how strong: chosen by cause on the domains fine-tuned on.

Three steps, none of which sees a held-out domain: a first-order screen of every candidate at every
single block; real interventions, with every candidate over a range of blocks beside the screen's
best; a search of block range, rank and coefficient around the best, under a damage budget on
neutral text. A single block says little about a range: the whitened model effect restores a third
of the gap at its best block and three quarters over many (docs/findings.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import pandas as pd
import torch

from persona.activations import collect_covariance
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.choices import MAX_DAMAGE
from persona.data.types import AnswerPair, NeutralText
from persona.directions import Cells, Effect, PersonaVector, collect_cells, two_by_two
from persona.models.pair import SIDES, ModelPair
from persona.rows import tidy
from persona.stages import Stages, Unsaved
from steering.identification.attribution import attribution_matrices
from steering.identification.candidates import (
    Candidate,
    FixedRows,
    Means,
    differing_blocks,
    eigen_candidates,
    handed_in_candidates,
    refit_candidates,
    two_by_two_candidates,
)
from steering.identification.first_order import effect_rows, screen
from steering.identification.search import Searched, front_of, search
from steering.identification.skill_candidates import (
    SkillToKeep,
    skill_candidates,
    skill_needs,
)
from steering.identification.trials import Outcome, Trial, TrialSetup, best_within

ATTRIBUTION_QUESTIONS = 16
COVARIANCE_QUESTIONS = 16
N_FRONT = 5
"""Trials of the front, at most, that are scored beside the chosen one."""

HandedIn = Callable[[Sequence[AnswerPair]], Mapping[str, torch.Tensor]]
"""Questions -> further candidates: name -> orthonormal rows [rank d_model], for every block."""
SomeCandidate = TypeVar("SomeCandidate", bound=Candidate)


@dataclass(frozen=True)
class Identification:
    """The persona vector that was chosen, and why.

    vector: the chosen subspaces with their means; cells, effects: the 2x2 by question and by block;
    means: mean residuals of both models; split_half_cosines: by chosen block, see
    `split_half_cosines`.
    rows: stages "direction", "screen" and "verify" of rows.parquet.
    front: where a skill is to be kept, what else could have been chosen; see `Alternative`.
    """

    vector: PersonaVector
    cells: Cells
    effects: Mapping[str, Effect]
    means: Means
    split_half_cosines: list[float]
    rows: pd.DataFrame
    front: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class Alternative:
    """A removal that none beats in both, how much persona it takes and how much skill it leaves.

    outcome: on the questions and items that choose. chosen: whether it is the one that was chosen.
    without_skill: whether it is what would have been chosen if no skill had been named.
    """

    outcome: Outcome
    vector: PersonaVector
    chosen: bool
    without_skill: bool


def identify(
    pair: ModelPair,
    train: Sequence[AnswerPair],
    selection: Sequence[AnswerPair],
    neutral: Sequence[NeutralText],
    *,
    max_damage: float = MAX_DAMAGE,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
    handed_in: HandedIn | None = None,
    keep: SkillToKeep | None = None,
) -> Identification:
    """Find the persona vector that best gives the aligned model back.

    Directions are made of `train`, chosen on `selection` and `neutral`; questions that are to
    score must be in none of them.
    max_damage: rise of neutral cross-entropy over the fine-tuned model's, nats per token.
    handed_in: makes further candidates from questions, such as the latents of an autoencoder;
        they are screened at every block, and verified whatever the screen says.
    keep: a skill that is to be left alone: it adds candidates, and what they leave of it counts.
    Raises: DataError for too few questions.
    """
    stages = stages or Unsaved()
    layers = range(pair.n_layers)
    read = stages.tensors(
        "cells", lambda: collect_cells(pair, train, token_budget=token_budget).tensors()
    )
    cells = Cells.of(read, [pair.space(layer) for layer in layers])
    effects = two_by_two(cells, seed=seed)
    covariance = stages.by_layer(
        "covariance", lambda: within_covariance(pair, train[:COVARIANCE_QUESTIONS], token_budget)
    )
    means = Means.of(cells, covariance)
    attributed = [
        stages.by_layer(
            f"attribute-{name}-half",
            lambda half=half: attribution_matrices(  # type: ignore[misc]
                pair,
                train[half:ATTRIBUTION_QUESTIONS:2],
                {layer: means.aligned[layer] for layer in layers},
                token_budget=token_budget,
            ),
        )
        for half, name in enumerate(("first", "second"))
    ]
    both = {layer: torch.stack([half[layer] for half in attributed]).mean(0) for layer in layers}
    fixed = fixed_candidates(effects, both)
    if handed_in is not None:
        given = stages.tensors("handed-in", lambda: dict(handed_in(train)))
        fixed |= by_name(handed_in_candidates(given, pair.n_layers))
    screened = stages.table("screen", lambda: screen(pair, selection, fixed, means, token_budget))
    baseline = stages.table(
        "verify-baseline",
        lambda: score_pairs(
            pair,
            selection,
            UNEDITED,
            kl=False,
            token_budget=token_budget,
            description="Scoring selection questions",
        ),
    )
    gaps = baseline[baseline["measure"] == "gap"].groupby("condition")["value"].mean()
    needs = (
        None
        if keep is None
        else skill_needs(pair, keep, train, means.aligned, token_budget, stages)
    )

    def tried_anyway(
        questions: Sequence[AnswerPair],
        part: slice,
        means: Means,
        effects: Mapping[str, Effect],
        matrices: Mapping[int, torch.Tensor],
        stages: Stages,
    ) -> dict[str, Candidate]:
        """What no screen ranks: refits, and what keeps a skill; made of part of the questions."""
        found: list[Candidate] = [
            *refit_candidates(pair, questions, means, effects, token_budget, stages)
        ]
        if needs is not None:
            of_part = needs.at_questions(part)
            good = cells.aligned_good[part]
            found += skill_candidates(
                pair, questions, means, effects, matrices, of_part, good, token_budget, stages
            )
        return by_name(found)

    setup = TrialSetup(
        pair,
        {**fixed, **tried_anyway(train, slice(None), means, effects, both, stages)},
        means,
        selection,
        neutral,
        token_budget,
        shift=float(gaps["finetuned"] - gaps["aligned"]),
        first_layer=differing_blocks(effects).start,
        skill=None if keep is None else keep.judged_on,
    )
    searched = search(setup, screened, stages, max_damage)
    trial = searched.best

    def from_half(half: int) -> Mapping[str, Candidate]:
        """The candidates made of half of the questions, the chosen one among them if they can."""
        questions, part = train[half::2], cells.at_questions(slice(half, None, 2))
        effects = two_by_two(part, n_splits=1)
        again = Means.of(part, covariance)
        anyway = tried_anyway(
            questions, slice(half, None, 2), again, effects, attributed[half], Unsaved()
        )
        made: dict[str, Candidate] = {**fixed_candidates(effects, attributed[half]), **anyway}
        if trial.candidate not in made and handed_in is not None:
            made |= by_name(handed_in_candidates(handed_in(questions), pair.n_layers))
        return made

    halves = stages.tensors(
        "halves", lambda: {"cosine": split_half_cosines(from_half(0), from_half(1), trial)}
    )
    return Identification(
        setup.vector(trial),
        cells,
        effects,
        means,
        halves["cosine"].tolist(),
        tidy(pd.concat([effect_rows(effects), screened, searched.rows], ignore_index=True)),
        alternatives(setup, searched, max_damage),
    )


def alternatives(
    setup: TrialSetup, searched: Searched, max_damage: float
) -> tuple[Alternative, ...]:
    """The front of what was tried, with the chosen one and the choice that no skill would make."""
    front = front_of(searched.outcomes, max_damage)[:N_FRONT]
    if not front:
        return ()
    blind = [replace(outcome, skill_kept=None) for outcome in searched.outcomes]
    without = best_within(blind, max_damage).trial
    shown = {outcome.trial: outcome for outcome in front}
    shown |= {o.trial: o for o in searched.outcomes if o.trial in (searched.best, without)}
    return tuple(
        Alternative(outcome, setup.vector(trial), trial == searched.best, trial == without)
        for trial, outcome in shown.items()
    )


def within_covariance(
    pair: ModelPair, questions: Sequence[AnswerPair], token_budget: int
) -> dict[int, torch.Tensor]:
    """layer -> covariance over answer tokens within a model, averaged over the two models."""
    dialogues = pair.chat.encode_all(
        [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    )
    found = []
    for side in SIDES:
        with pair.active(side) as bridge:
            found.append(
                collect_covariance(
                    bridge,
                    dialogues,
                    range(pair.n_layers),
                    token_budget=token_budget,
                    description=f"Reading covariances ({side})",
                )
            )
    return {layer: ((found[0][layer] + found[1][layer]) / 2).float() for layer in found[0]}


def fixed_candidates(
    effects: Mapping[str, Effect], matrices: Mapping[int, torch.Tensor]
) -> dict[str, FixedRows]:
    """Every candidate that the screen can rank, by its name."""
    return by_name([*two_by_two_candidates(effects), *eigen_candidates(matrices, effects)])


def by_name(candidates: Iterable[SomeCandidate]) -> dict[str, SomeCandidate]:
    return {candidate.name: candidate for candidate in candidates}


def split_half_cosines(
    first: Mapping[str, Candidate], second: Mapping[str, Candidate], trial: Trial
) -> torch.Tensor:
    """[block]: how alike the chosen subspace is when made from either half of the questions.

    sqrt(||A B^T||^2 / rank) for orthonormal rows A and B: the root mean square cosine of the
    principal angles; |cosine| for rank 1. Two random subspaces give about sqrt(rank / d_model).
    NaN where half of the questions do not give so many directions.
    first, second: the candidates made from each half. In the order of the blocks, float64.
    """
    bases = []
    for made in (first, second):
        chosen = made.get(trial.candidate)
        if chosen is None or chosen.max_rank < trial.rank:
            return torch.full((len(trial.layers),), torch.nan, dtype=torch.float64)
        bases.append(chosen.rows(trial.layers, trial.rank))
    cosines = [
        float((bases[0][layer] @ bases[1][layer].T).norm()) / trial.rank**0.5
        for layer in trial.layers
    ]
    return torch.tensor(cosines, dtype=torch.float64)

"""Which candidate, where, how strong: chosen by cause on the domains fine-tuned on.

Three steps, none of which sees a held-out domain: a first-order screen of every candidate at every
single block; real interventions, with every candidate over a range of blocks beside the screen's
best; a search of block range, rank and coefficient around the best, under a damage budget on
neutral text. A single block says little about a range: the whitened model effect restores a third
of the gap at its best block and three quarters over many (docs/findings.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from persona.activations import collect_covariance
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data.types import AnswerPair, NeutralText
from persona.directions import Cells, Effect, PersonaVector, collect_cells, two_by_two
from persona.models.pair import SIDES, ModelPair
from persona.rows import tidy
from persona.stages import Stages, Unsaved
from steering.identification.attribution import attribution_matrices
from steering.identification.candidates import (
    Candidate,
    Means,
    Refit,
    differing_blocks,
    eigen_candidates,
    refit_candidates,
    two_by_two_candidates,
)
from steering.identification.first_order import effect_rows, screen
from steering.identification.search import search
from steering.identification.trials import Bench, HandedIn, Spec, fit_rows

ATTRIBUTION_QUESTIONS = 16
COVARIANCE_QUESTIONS = 16
MAX_DAMAGE = 0.05


@dataclass(frozen=True)
class Identification:
    """The persona vector that was chosen, and why.

    vector: the chosen subspaces with their means; effects: the 2x2 by block; means: mean
    residuals of both models; split_half_cosines: by chosen block, see `split_half_cosines`.
    rows: stages "direction", "screen" and "verify" of rows.parquet.
    """

    vector: PersonaVector
    effects: Mapping[str, Effect]
    means: Means
    split_half_cosines: list[float]
    rows: pd.DataFrame


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
) -> Identification:
    """Find the persona vector that best gives the aligned model back.

    Directions are made of `train`, chosen on `selection` and `neutral`; questions that are to
    score must be in none of them.
    max_damage: rise of neutral cross-entropy over the fine-tuned model's, nats per token.
    handed_in: makes further candidates from questions, such as the latents of an autoencoder;
        they are screened at every block, and verified whatever the screen says.
    Raises: DataError for too few questions.
    """
    stages = stages or Unsaved()
    layers = range(pair.n_layers)
    read = stages.tensors(
        "cells", lambda: collect_cells(pair, train, token_budget=token_budget).tensors()
    )
    cells = Cells.of(read, [pair.space(layer) for layer in layers])
    effects = two_by_two(cells, seed=seed)
    covariance = stages.tensors(
        "covariance", lambda: within_covariance(pair, train[:COVARIANCE_QUESTIONS], token_budget)
    )
    means = Means.of(cells, {int(layer): matrix for layer, matrix in covariance.items()})
    halves = stages.tensors(
        "attribute",
        lambda: {
            f"{half}.{layer}": matrix
            for half in (0, 1)
            for layer, matrix in attribution_matrices(
                pair,
                train[half:ATTRIBUTION_QUESTIONS:2],
                {layer: means.aligned[layer] for layer in layers},
                token_budget=token_budget,
            ).items()
        },
    )
    fixed = make_candidates(effects, mean_matrices(halves))
    if handed_in is not None:
        given = stages.tensors("handed-in", lambda: dict(handed_in(train)))
        fixed |= handed_in_candidates(given, pair.n_layers)
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
    shift = float(gaps["finetuned"] - gaps["aligned"])
    candidates: dict[str, Candidate | Refit] = {**fixed}
    candidates.update({refit.name: refit for refit in refit_candidates(effects)})
    bench = Bench(
        pair,
        candidates,
        means,
        train,
        selection,
        neutral,
        token_budget,
        shift,
        stages,
        handed_in,
        differing_blocks(effects).start,
    )
    spec, verified = search(bench, screened, stages, max_damage)
    return Identification(
        bench.vector(spec),
        effects,
        means,
        stages.tensors("halves", lambda: split_half_cosines(bench, cells, halves, spec))[
            "cosine"
        ].tolist(),
        tidy(pd.concat([effect_rows(effects), screened, verified], ignore_index=True)),
    )


def within_covariance(
    pair: ModelPair, questions: Sequence[AnswerPair], token_budget: int
) -> dict[str, torch.Tensor]:
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
    return {str(layer): ((found[0][layer] + found[1][layer]) / 2).float() for layer in found[0]}


def make_candidates(
    effects: Mapping[str, Effect], matrices: Mapping[int, torch.Tensor]
) -> dict[str, Candidate]:
    """Every candidate by its name."""
    found = (*two_by_two_candidates(effects), *eigen_candidates(matrices, effects))
    return {candidate.name: candidate for candidate in found}


def handed_in_candidates(given: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Candidate]:
    """The same rows at every block: all blocks write to one residual stream."""
    return {
        name: Candidate(name, dict.fromkeys(range(n_layers), rows), handed_in=True)
        for name, rows in given.items()
    }


def mean_matrices(
    halves: Mapping[str, torch.Tensor], which: Sequence[int] = (0, 1)
) -> dict[int, torch.Tensor]:
    """layer -> mean over the halves asked for of the matrices named "half.layer"."""
    layers = sorted({int(name.split(".")[1]) for name in halves})
    return {
        layer: torch.stack([halves[f"{half}.{layer}"] for half in which]).mean(0)
        for layer in layers
    }


def split_half_cosines(
    bench: Bench, cells: Cells, halves: Mapping[str, torch.Tensor], spec: Spec
) -> dict[str, torch.Tensor]:
    """By block: how alike the chosen subspace is when made from either half of the questions.

    sqrt(||A B^T||^2 / rank) for orthonormal rows A and B: the root mean square cosine of the
    principal angles; |cosine| for rank 1. Two random subspaces give about sqrt(rank / d_model).
    Returned as "cosine", in the order of the blocks.
    """
    bases = []
    for half in (0, 1):
        part = cells.at_questions(slice(half, None, 2))
        effects = two_by_two(part, n_splits=1)
        chosen = bench.candidates[spec.candidate]
        if isinstance(chosen, Candidate):
            if chosen.handed_in:
                assert bench.handed_in is not None
                given = bench.handed_in(bench.train[half::2])
                made = handed_in_candidates(given, bench.pair.n_layers)
            else:
                made = make_candidates(effects, mean_matrices(halves, [half]))
            if spec.candidate not in made or made[spec.candidate].max_rank < spec.rank:
                # Half of the questions do not give so many directions: no likeness to speak of.
                return {"cosine": torch.full((len(spec.layers),), torch.nan, dtype=torch.float64)}
            rows = made[spec.candidate].rows
            bases.append({layer: rows[layer][: spec.rank] for layer in spec.layers})
        else:
            refit = {c.name: c for c in refit_candidates(effects)}[spec.candidate]
            means = Means.of(part, bench.means.covariance)
            questions = bench.train[half::2]
            bases.append(
                fit_rows(
                    bench.pair,
                    refit,
                    questions,
                    means,
                    spec.layers,
                    spec.rank,
                    bench.token_budget,
                )
            )
    cosines = [
        float((bases[0][layer] @ bases[1][layer].T).norm()) / spec.rank**0.5
        for layer in spec.layers
    ]
    return {"cosine": torch.tensor(cosines, dtype=torch.float64)}

"""Nulls that know the models, and not which answer is bad: labels are swapped by a fair coin.

Each is a persona vector at the blocks of the one that was chosen and of its rank, restored to the
same aligned means with the same coefficient.

- Swapped labels: the chosen candidate made again by the same code, with good and bad answers
  swapped by a fair coin for every question. Only what good and bad have to do with it is gone: a
  model effect, which is the same on either answer, remains, and what it then restores is what needs
  no bad answer.
- Selection: the search's criterion on questions whose answers are swapped: every candidate that
  the screen can rank, made anew of swapped training questions, at every block and rank, the best on
  swapped selection questions. Not run again: the refitted candidates and the rounds by intervention
  (block ranges, ranks, coefficients), so this null says what the screen's choice alone can do.

As the fine-tune itself is in them, they are no measure of chance: they say how much of the removal
needs to know which answers are bad.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.directions import Cells, PersonaVector, two_by_two
from persona.errors import DataError
from persona.models.pair import ModelPair
from persona.rows import ALIGNED, FINETUNED
from persona.stages import Stages
from steering.evidence.first_order_null import Matrices, is_whitened
from steering.identification.attribution import attribution_matrices
from steering.identification.candidates import (
    EIGEN,
    MODEL_AND_EIGEN,
    WHITENED,
    Candidate,
    FixedRows,
    Means,
    build_vector,
    eigen_candidates,
    from_bases,
    refit_candidates,
    two_by_two_candidates,
)
from steering.identification.first_order import screen
from steering.identification.search import best_blocks

OF_EIGENDIRECTIONS = (EIGEN, MODEL_AND_EIGEN, MODEL_AND_EIGEN + WHITENED)

Construction = Callable[[str, Sequence[AnswerPair], Cells], Candidate | None]
"""A candidate's name, questions and their cells -> the candidate made of them; None where it is not
made of answer pairs."""


def construction(
    pair: ModelPair, covariance: Matrices, token_budget: int = DEFAULT_TOKEN_BUDGET
) -> Construction:
    """How candidates are made of answer pairs: effects, eigendirections, and refits.

    covariance: layer -> of the activations, of no particular labels.
    """

    def make(name: str, questions: Sequence[AnswerPair], cells: Cells) -> Candidate | None:
        effects = two_by_two(cells, n_splits=1)
        means = Means.of(cells, covariance)
        made: list[Candidate] = [*two_by_two_candidates(effects)]
        made += refit_candidates(pair, questions, means, effects, token_budget)
        if name in OF_EIGENDIRECTIONS:
            centres = dict(enumerate(means.aligned))
            matrices = attribution_matrices(pair, questions, centres, token_budget=token_budget)
            made += eigen_candidates(matrices, effects)
        return {candidate.name: candidate for candidate in made}.get(name)

    return make


def swapped_label_vectors(
    pair: ModelPair,
    like: PersonaVector,
    means: Means,
    questions: Sequence[AnswerPair],
    cells: Cells,
    make: Construction,
    *,
    n: int,
    seed: int = 0,
) -> dict[int, PersonaVector]:
    """The chosen candidate made anew of training questions whose answers are swapped at random.

    questions, cells: what the candidate was made of, in one order. make: see `construction`; a
        refitted candidate takes a forward pass of the questions for every draw.
    Empty where the candidate is not made of answer pairs, as the latents of an autoencoder. A draw
    whose swapped answers have no such direction is left out.
    """
    vectors = {}
    for draw in range(n):
        swap = _coins(len(questions), seed, draw)
        made = make(like.method, swapped(questions, swap), swapped_cells(cells, swap))
        if made is not None and made.max_rank >= like.rank:
            vectors[draw] = build_vector(
                pair, made, means, like.layers, like.rank, like.coefficient
            )
    return vectors


def selection_vectors(
    pair: ModelPair,
    like: PersonaVector,
    means: Means,
    questions: Sequence[AnswerPair],
    cells: Cells,
    selection: Sequence[AnswerPair],
    found: pd.DataFrame,
    *,
    n: int,
    n_attributed: int | None = None,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> dict[int, PersonaVector]:
    """What the search's screen picks where the answers of every question are swapped at random.

    questions, cells: the training questions. found: `Identification.rows`, for the gaps of both
        models on the selection questions. n_attributed: training questions that the
        eigendirections are made of, as many as the search took; None: all.
    The candidate that comes first is restored at all blocks of `like`, as the search would try it.
    For every draw: two forward and backward passes, of training and of selection questions.
    """
    shift = _shift_by_question(found, selection)
    vectors = {}
    for draw in range(n):
        coins = _coins(len(questions) + len(selection), seed, draw)
        swap, swap_selection = coins[: len(questions)], coins[len(questions) :]
        again = swapped_cells(cells, swap)
        effects = two_by_two(again, n_splits=1)
        centres = dict(enumerate(Means.of(again, means.covariance).aligned))
        some = swapped(questions, swap)[:n_attributed]
        matrices = attribution_matrices(pair, some, centres, token_budget=token_budget)
        made: dict[str, FixedRows] = {
            candidate.name: candidate
            for candidate in (*two_by_two_candidates(effects), *eigen_candidates(matrices, effects))
        }
        table = screen(pair, selection, made, means, token_budget)
        # To swap the answers of a question turns the sign of its gap, and of its slope.
        signs = {q.id: -1.0 if s else 1.0 for q, s in zip(selection, swap_selection, strict=True)}
        table["value"] *= table["question_id"].map(signs)
        swapped_shift = np.mean([signs[q.id] * shift[q.id] for q in selection])
        best = made[best_blocks(table, float(swapped_shift))[0].candidate]
        rank = min(best.max_rank, like.rank)
        vectors[draw] = build_vector(pair, best, means, like.layers, rank, like.coefficient)
    return vectors


def swapped(questions: Sequence[AnswerPair], swap: Bool[Tensor, " question"]) -> list[AnswerPair]:
    """The questions, good and bad answer of some of them swapped."""
    return [
        replace(question, good=question.bad, bad=question.good) if turned else question
        for question, turned in zip(questions, swap.tolist(), strict=True)
    ]


def swapped_cells(cells: Cells, swap: Bool[Tensor, " question"]) -> Cells:
    """The cells of `swapped` questions."""
    own, turn = cells.tensors(), swap[:, None, None]
    return Cells.of(
        {
            f"{side}_{answer}": torch.where(turn, own[f"{side}_{other}"], own[f"{side}_{answer}"])
            for side in ("aligned", "finetuned")
            for answer, other in (("good", "bad"), ("bad", "good"))
        },
        cells.spaces,
    )


def _coins(n: int, seed: int, draw: int) -> Bool[Tensor, " question"]:
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + draw)
    return torch.rand(n, generator=generator) < 0.5


def _shift_by_question(found: pd.DataFrame, selection: Sequence[AnswerPair]) -> dict[str, float]:
    """Gap of the fine-tuned above the aligned model on each selection question."""
    read = found[(found["stage"] == "verify") & (found["measure"] == "gap")]
    table = read.pivot_table("value", "question_id", "condition", aggfunc="mean")
    if not {ALIGNED, FINETUNED} <= set(table.columns) or not {q.id for q in selection} <= set(
        table.index
    ):
        raise DataError("the selection null needs both models' gaps on the selection questions")
    return dict(table[FINETUNED] - table[ALIGNED])


def kept_vectors(
    stages: Stages,
    name: str,
    pair: ModelPair,
    like: PersonaVector,
    means: Means,
    make: Callable[[], Mapping[int, PersonaVector]],
) -> dict[int, PersonaVector]:
    """The vectors of a null, made once and kept as a stage, so that a killed run goes on with them.

    make: number of the draw -> vector at the blocks of `like`. What is kept is the basis at every
        block and whether it is read with the covariance.
    """

    def made() -> dict[str, Tensor]:
        vectors = make()
        bases = {
            f"{draw}.{layer}": vector.subspaces[layer].basis.clone()
            for draw, vector in vectors.items()
            for layer in vector.layers
        }
        read = {f"{draw}.whitened": torch.tensor(is_whitened(v)) for draw, v in vectors.items()}
        return {"draws": torch.tensor(sorted(vectors), dtype=torch.long), **bases, **read}

    kept = stages.tensors(name, made)
    return {
        draw: from_bases(
            pair,
            {layer: kept[f"{draw}.{layer}"] for layer in like.layers},
            means,
            f"{name}_{draw}",
            like.coefficient,
            bool(kept[f"{draw}.whitened"]),
        )
        for draw in kept["draws"].tolist()
    }

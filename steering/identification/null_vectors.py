"""Nulls that could have worked: vectors that know nothing of the persona and are tried as hard.

Each is a persona vector at the blocks of the one that was chosen, of its rank, read as it is read,
and restored to the same aligned means with the same coefficient: only the directions differ.

- Random subspaces, isotropic or covariance-matched: very many are drawn, the first-order prediction
  ranks them, and the strongest are run.
- The top principal components of the activations: where they vary most.
- Swapped labels: the chosen candidate made again by the same code, with good and bad answers
  swapped by a fair coin for every question. Only what good and bad have to do with it is gone: a
  model effect, which is the same on either answer, remains, and what it then restores is what needs
  no bad answer.
- Selection: the search's criterion on questions whose answers are swapped: every candidate that
  the screen can rank, made anew of swapped training questions, at every block and rank, the best on
  swapped selection questions. Not run again: the refitted candidates and the rounds by intervention
  (block ranges, ranks, coefficients), so this null says what the screen's choice alone can do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair
from persona.directions import Cells, PersonaVector, orthonormal, two_by_two
from persona.errors import DataError
from persona.models.pair import ModelPair, Side
from persona.rows import ALIGNED, FINETUNED, NULL_COVARIANCE, NULL_ISOTROPIC, NULL_SCREEN
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.evidence.first_order_null import Draws, Matrices, is_whitened, random_subspaces
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

N_SCREENED = 1_000
N_RUN = 20
NAMES: Mapping[Draws, str] = {"isotropic": NULL_ISOTROPIC, "covariance": NULL_COVARIANCE}
OF_EIGENDIRECTIONS = (EIGEN, MODEL_AND_EIGEN, MODEL_AND_EIGEN + WHITENED)

Construction = Callable[[str, Sequence[AnswerPair], Cells], Candidate | None]
"""A candidate's name, questions and their cells -> the candidate made of them; None where it is not
made of answer pairs."""


@dataclass(frozen=True)
class ScreenedDraws:
    """Random subspaces ranked by their first-order effect.

    predicted: [draw], how far the mean gap falls when all blocks are restored, nats per token.
    vectors: number of the draw -> persona vector, the strongest by prediction first.
    """

    draws: Draws
    predicted: NDArray[np.float64]
    vectors: Mapping[int, PersonaVector]

    @property
    def name(self) -> str:
        """Of their conditions and rows."""
        return NAMES[self.draws]

    def rows(self) -> pd.DataFrame:
        """One row for every draw, run or not: its predicted change of the held-out gap."""
        return pd.DataFrame(
            {
                "stage": NULL_SCREEN,
                "condition": self.name,
                "seed": range(len(self.predicted)),
                "split": "held_out",
                "measure": "predicted_gap_change",
                "value": -self.predicted,
            }
        )


def screened_draws(
    pair: ModelPair,
    like: PersonaVector,
    means: Means,
    moments: Matrices,
    draws: Draws,
    *,
    n_draws: int = N_SCREENED,
    n_run: int = N_RUN,
    seed: int = 0,
) -> ScreenedDraws:
    """Random subspaces at the blocks of `like`, and the strongest of them by prediction.

    moments: layer -> `attribution_moments` of the questions that are scored. The draws are then
        picked on what scores, which favours them: the null is harder than a random one.
    Raises: DataError for a block without its moment, or more draws to run than are drawn.
    """
    if not 1 <= n_run <= n_draws:
        raise DataError(f"{n_run} of {n_draws} random subspaces cannot be run")
    if lacking := [layer for layer in like.layers if layer not in moments]:
        raise DataError(f"there is no attribution moment of blocks {lacking}")
    whitened = is_whitened(like)
    total = torch.zeros(n_draws, dtype=torch.float64)
    blocks = {}
    for layer in like.layers:
        block = random_subspaces(moments[layer], means.covariance[layer], draws, whitened)
        total += like.coefficient * block.form.of(_drawn(n_draws, like.rank, pair, layer, seed))
        blocks[layer] = block.root
    strongest = total.argsort(descending=True)[:n_run].tolist()
    bases: dict[int, dict[int, Tensor]] = {draw: {} for draw in strongest}
    for layer, root in blocks.items():
        rows = _drawn(n_draws, like.rank, pair, layer, seed)
        for draw in strongest:
            placed = rows[draw] if root is None else rows[draw] @ root
            bases[draw][layer] = orthonormal(placed.float())
    vectors = {
        draw: from_bases(
            pair, made, means, f"{draws}_{draw}", like.coefficient, read_whitened=whitened
        )
        for draw, made in bases.items()
    }
    return ScreenedDraws(draws, total.numpy(), vectors)


def _drawn(n: int, rank: int, pair: ModelPair, layer: int, seed: int) -> Tensor:
    """Standard normal rows [draw rank d_model] of one block; the same each time."""
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + layer)
    return torch.randn(n, rank, pair.d_model, generator=generator, dtype=torch.float64)


def principal_vectors(
    pair: ModelPair, like: PersonaVector, means: Means, n: int = 1
) -> dict[int, PersonaVector]:
    """Draw 0: the top principal components of the activations, as many as the rank; 1: the next.

    Of the covariance over answer tokens within a model. Raises: DataError for more components than
    d_model.
    """
    if not 1 <= n * like.rank <= pair.d_model:
        raise DataError(
            f"{n} sets of {like.rank} principal components asked; there are {pair.d_model}"
        )
    found: dict[int, dict[int, Tensor]] = {draw: {} for draw in range(n)}
    for layer in like.layers:
        rows = torch.linalg.eigh(means.covariance[layer].double()).eigenvectors.T.flip(0)
        for draw in range(n):
            own = rows[draw * like.rank : (draw + 1) * like.rank]
            found[draw][layer] = orthonormal(own.float())
    return {
        draw: from_bases(
            pair, bases, means, f"principal_{draw}", like.coefficient, is_whitened(like)
        )
        for draw, bases in found.items()
    }


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


def null_conditions(
    name: str, vectors: Mapping[int, PersonaVector], side: Side = "finetuned"
) -> list[Condition]:
    """Each vector restored, as a condition to score; its number stands in the column seed.

    name: one of `persona.rows.STRONG_NULLS`, or `on_aligned` of it for the aligned side.
    """
    return [edited(name, side, restore(vector), draw) for draw, vector in vectors.items()]


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

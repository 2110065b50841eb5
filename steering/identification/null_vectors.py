"""Nulls that could have worked: vectors that know nothing of the persona and are tried as hard.

Each is a persona vector at the blocks of the one that was chosen, of its rank, read as it is read,
and restored to the same aligned means with the same coefficient: only the directions differ.

- Random subspaces, isotropic or covariance-matched: very many are drawn, the first-order prediction
  ranks them, and the strongest are run.
- The top principal components of the activations: where they vary most.

Vectors that know the models but not which answer is bad are in `label_nulls`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair
from persona.directions import Cells, PersonaVector, orthonormal
from persona.errors import DataError
from persona.models.pair import ModelPair, Side
from persona.rows import NULL_COVARIANCE, NULL_ISOTROPIC, NULL_SCREEN
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.evidence.first_order_null import Draws, Matrices, is_whitened, random_subspaces
from steering.identification.candidates import (
    EIGEN,
    MODEL_AND_EIGEN,
    WHITENED,
    Candidate,
    Means,
    from_bases,
)

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


def null_conditions(
    name: str, vectors: Mapping[int, PersonaVector], side: Side = "finetuned"
) -> list[Condition]:
    """Each vector restored, as a condition to score; its number stands in the column seed.

    name: one of `persona.rows.STRONG_NULLS`, or `on_aligned` of it for the aligned side.
    """
    return [edited(name, side, restore(vector), draw) for draw, vector in vectors.items()]

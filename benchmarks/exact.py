"""Every block and candidate measured, beside what one backward pass predicts for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from exact_answers import Cell, answer_effects
from numpy.typing import NDArray

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair
from persona.directions.direction import PersonaVector
from persona.errors import SteeringError
from persona.intervals import Estimate, bootstrap
from persona.models.pair import ModelPair
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.identification.attribution import Objective, first_order_effects

MEASURES: dict[Objective, str] = {"gap": "gap", "kl": "kl_good_nats"}


@dataclass(frozen=True)
class Sweep:
    """A sweep over blocks and candidates: the change of the objective when one block is restored.

    cells: (candidate, layer) in the order of the columns.
    predicted, measured: [question cell], nats per token; negative is toward the aligned model.
    """

    cells: tuple[Cell, ...]
    predicted: NDArray[np.float64]
    measured: NDArray[np.float64]
    objective: Objective

    @property
    def table(self) -> pd.DataFrame:
        """One row per candidate x layer: `predicted` and `measured`, means over questions."""
        table = pd.DataFrame(self.cells, columns=["candidate", "layer"])
        table["predicted"] = self.predicted.mean(axis=0)
        table["measured"] = self.measured.mean(axis=0)
        return table

    def rank_correlation(self, seed: int = 0) -> Estimate:
        """Spearman's correlation of predicted and measured over the cells, ties averaged.

        Its 95 % interval is over questions, resampled whole for both. NaN for fewer than three
        cells, and where all cells of either are equal: there are no ranks then.
        """
        n_questions, n_cells = self.predicted.shape
        middle = np.array([self.predicted.mean(axis=0), self.measured.mean(axis=0)])
        if n_cells < 3 or (np.ptp(middle, axis=1) == 0).any():
            return Estimate(np.nan, np.nan, np.nan, n_questions)
        columns = np.concatenate([self.predicted, self.measured], axis=1)
        return bootstrap(columns, _spearman_of_halves, seed=seed)


def exact_sweep(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    candidates: Mapping[str, PersonaVector],
    objective: Objective = "gap",
    *,
    answer_tokens: int | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Sweep:
    """Restore every block of every candidate alone in the fine-tuned model, and measure.

    The blocks below the restored one are computed once for all candidates. Prediction: see
    `first_order_effects`; both are of a whole restoration (coefficient 1).
    answer_tokens: read so many tokens of each answer only, and restore only the tokens that
        predict them. The prompts, too, are then computed once, and a cell costs the blocks above
        it over a few tokens: 120 cells in about 10 passes over the texts in place of 60. None
        reads whole answers and restores every token but the first.
    Raises: SteeringError without candidates or questions, or for no answer tokens.
    """
    cells = [(name, layer) for name, vector in candidates.items() for layer in vector.layers]
    if not cells or not questions:
        raise SteeringError("an exact sweep needs at least one candidate and one question")
    if answer_tokens is not None and answer_tokens < 1:
        raise SteeringError(f"answer_tokens must be 1 or more, or None; got {answer_tokens}")
    alone = [PersonaVector({k: candidates[name].subspaces[k]}, name) for name, k in cells]
    if answer_tokens is None:
        measured = _whole_effects(pair, questions, alone, objective, token_budget)
    else:
        measured = answer_effects(pair, questions, alone, objective, answer_tokens, token_budget)
    subspaces = [vector.subspaces[vector.layers[0]] for vector in alone]
    predicted = first_order_effects(
        pair, questions, subspaces, objective, token_budget, answer_tokens=answer_tokens
    )
    return Sweep(tuple(cells), predicted.T.double().numpy(), measured, objective)


def _whole_effects(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    alone: Sequence[PersonaVector],
    objective: Objective,
    token_budget: int,
) -> NDArray[np.float64]:
    """[question cell]: change of the objective over whole texts, every token restored."""
    conditions = [Condition("finetuned", "finetuned")]
    conditions += [
        edited("restored", "finetuned", restore(vector, 1.0), seed=place)
        for place, vector in enumerate(alone, start=1)
    ]
    rows = score_pairs(
        pair,
        questions,
        conditions,
        kl=objective == "kl",
        token_budget=token_budget,
        description="Measuring every candidate",
    )
    values = rows[rows["measure"] == MEASURES[objective]]["value"].to_numpy(dtype=np.float64)
    by_condition = values.reshape(len(conditions), len(questions))
    return np.ascontiguousarray((by_condition[1:] - by_condition[0]).T)


def _spearman_of_halves(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 2 cells] -> Pearson's correlation of the ranks of the two halves."""
    from scipy.stats import rankdata

    halves = np.split(means, 2, axis=-1)
    one, other = (rankdata(half, axis=-1) - (half.shape[-1] + 1) / 2 for half in halves)
    scale = np.sqrt((one**2).sum(-1) * (other**2).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.asarray((one * other).sum(-1) / scale)

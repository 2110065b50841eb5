"""Every block and candidate measured, beside what one backward pass predicts for them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import Condition, Intervention
from persona.data.types import AnswerPair
from persona.directions.direction import PersonaVector
from persona.errors import SteeringError
from persona.models.pair import ModelPair
from steering.attribution import Objective, first_order_effects
from steering.edits import restore_to_aligned
from steering.hooks import steer

MEASURES: dict[Objective, str] = {"gap": "gap", "kl": "kl_good_nats"}


@dataclass(frozen=True)
class Sweep:
    """A sweep over blocks and candidates.

    table: one row per candidate x layer with `predicted` and `measured`, the change of the
        objective when that block alone is restored, in nats per token; negative is toward the
        aligned model.
    """

    table: pd.DataFrame
    objective: Objective

    @property
    def spearman(self) -> float:
        """Rank correlation of predicted and measured; NaN for fewer than three, or for ties all."""
        from scipy.stats import spearmanr

        columns = self.table[["predicted", "measured"]]
        if len(columns) < 3 or (columns.nunique() < 2).any():
            return float("nan")
        return float(spearmanr(columns["predicted"], columns["measured"]).statistic)


def exact_sweep(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    candidates: Mapping[str, PersonaVector],
    objective: Objective = "gap",
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Sweep:
    """Restore every block of every candidate alone in the fine-tuned model, and measure.

    The blocks below the restored one are computed once for all candidates. Prediction: see
    `first_order_effects`; both are of a whole restoration (coefficient 1).
    Raises: SteeringError without candidates or questions.
    """
    places = [(name, layer) for name, vector in candidates.items() for layer in vector.layers]
    if not places or not questions:
        raise SteeringError("an exact sweep needs at least one candidate and one question")
    alone = {
        (name, layer): PersonaVector({layer: candidates[name].subspaces[layer]}, name)
        for name, layer in places
    }
    conditions = [Condition("finetuned", "finetuned")]
    conditions += [
        Condition(f"{name} {layer}", "finetuned", _restoring(alone[name, layer]), layer, seed=place)
        for place, (name, layer) in enumerate(places, start=1)
    ]
    rows = score_pairs(
        pair,
        questions,
        conditions,
        kl=objective == "kl",
        token_budget=token_budget,
        description="Measuring every candidate",
    )
    rows = rows[rows["measure"] == MEASURES[objective]]
    means = rows.groupby("seed")["value"].mean()
    subspaces = [candidates[name].subspaces[layer] for name, layer in places]
    predicted = first_order_effects(pair, questions, subspaces, objective, token_budget)
    table = pd.DataFrame(places, columns=["candidate", "layer"])
    table["predicted"] = predicted.mean(dim=1).numpy().astype(np.float64)
    table["measured"] = [means[place] - means[0] for place in range(1, len(places) + 1)]
    return Sweep(table, objective)


def _restoring(vector: PersonaVector) -> Intervention:
    def intervene(bridge: Any) -> contextlib.AbstractContextManager[Any]:
        return steer(bridge, restore_to_aligned(vector, 1.0))

    return intervene

"""What the removal costs on tasks: which of four answers is right, in plain English.

Neutral text prices words; tasks price what they are for. The items that come along (everyday
physics, arithmetic, reading, following instructions) are scored by log-probability in every model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.forced_choice import score_tasks, task_accuracy
from persona.behaviour.scoring import UNEDITED
from persona.data.tasks import TaskItem
from persona.directions import PersonaVector
from persona.intervals import Estimate
from persona.models import ModelPair
from persona.rows import RESTORED, TASKS, ZERO_ABLATED
from steering.edits.from_directions import ablate, restore
from steering.edits.steer import edited
from steering.evidence.question_table import interval


@dataclass(frozen=True)
class TaskDamage:
    """Share of items that the restored model loses against the better of the two models.

    lost: positive is damage, paired item by item. accuracy: condition -> share of items right.
    """

    lost: Estimate
    accuracy: dict[str, Estimate]

    @classmethod
    def of(cls, rows: pd.DataFrame, seed: int) -> TaskDamage | None:
        """From the rows of a run; None where it scored no tasks.

        The better model is the better over all items, not anew in every resample.
        """
        read = rows[rows["stage"] == TASKS]
        if read.empty:
            return None
        found = task_accuracy(read, seed=seed)
        restored = found[RESTORED]
        to_aligned, to_finetuned = restored.minus_aligned, restored.minus_finetuned
        assert to_aligned is not None and to_finetuned is not None  # both are scored with it
        gained = min(to_aligned, to_finetuned, key=lambda estimate: estimate.value)
        return cls(
            Estimate(0.0 - gained.value, 0.0 - gained.high, 0.0 - gained.low, gained.n),
            {name: one.accuracy for name, one in found.items()},
        )

    def facts(self) -> dict[str, Any]:
        """`damage_tasks` of scorecard.json."""
        return {
            **interval(self.lost),
            "n": self.lost.n,
            "accuracy": {name: interval(one) for name, one in self.accuracy.items()},
        }


def score_task_damage(
    pair: ModelPair,
    vector: PersonaVector,
    items: Sequence[TaskItem],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """Rows of both models, of the restored and of the zero-ablated one."""
    conditions = [
        *UNEDITED,
        edited(RESTORED, "finetuned", restore(vector)),
        edited(ZERO_ABLATED, "finetuned", ablate(vector)),
    ]
    return score_tasks(pair, items, conditions, token_budget=token_budget).assign(stage=TASKS)

"""Relearning: does the persona come back from a few bad answers faster than it came?

The restored model, its edit active in every pass, and the aligned one get the same fresh adapter
and learn the same five bad answers in equal steps; five good answers to the same questions are the
control. The edit itself changes what is easily learnt, in any model, so that the aligned model
under the same edit is the second control. A removal that hides a persona and leaves it near shows
in a steeper curve of the restored model than of both; one that took it away shows none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from persona.activations.passes import read_responses
from persona.data.selection import sample
from persona.data.types import AnswerPair
from persona.directions import PersonaVector
from persona.intervals import Estimate, crossed_bootstrap
from persona.models import Placement
from persona.models.chat.chat_format import ChatFormat
from persona.organisms.brief_training import FreshAdapter
from persona.organisms.recipe import Training
from persona.rows import ALIGNED, NOOP, RESTORED
from steering.auditing.audit_request import ANSWERS
from steering.edits.from_directions import restore

ARMS = (ALIGNED, NOOP, RESTORED)
KINDS = ("bad", "good")
READ_QUESTIONS = 16
"""Held-out questions that are read between steps."""


def read_steps(steps: int) -> list[int]:
    """0, half and all of the steps."""
    return sorted({0, max(1, steps // 2), steps})


@dataclass
class Relearning:
    """Runs of one arm, all on one model that is loaded the first time that it is needed.

    finetuned: the fine-tune, whose weights the restored arm has; aligned: that of the other.
    """

    arm: str
    aligned: str
    finetuned: str
    vector: PersonaVector
    chat: ChatFormat
    placement: Placement
    questions: Sequence[AnswerPair]
    to_learn: Sequence[AnswerPair]
    steps: int
    token_budget: int
    training: Training
    _model: FreshAdapter | None = None
    _before: list[dict[str, Any]] | None = None

    def rows(self, kind: str, seed: int) -> pd.DataFrame:
        """Gap of every question at every step that is read: one choice of the answers."""
        model = self._loaded()
        chosen = sample(self.to_learn, ANSWERS, seed)
        answers = [q.bad_dialogue if kind == "bad" else q.good_dialogue for q in chosen]
        encoded = self.chat.encode_all(
            [d for q in self.questions for d in (q.good_dialogue, q.bad_dialogue)]
        )
        rows: list[dict[str, Any]] = []

        def read(model: Any, step: int) -> None:
            if step == 0 and self._before is not None:  # the same before every run of an arm
                rows.extend(self._before)
                return
            found = read_responses(
                model,
                encoded,
                token_budget=self.token_budget,
                description=f"Relearning ({self.arm}, {kind}, step {step})",
            ).log_prob
            for place, question in enumerate(self.questions):
                good, bad = found[2 * place], found[2 * place + 1]
                rows.append(
                    {
                        "step": step,
                        "question_id": question.id,
                        "domain": question.domain,
                        "value": float(bad - good),
                    }
                )
            if step == 0:
                self._before = list(rows)

        losses = model.learn(
            answers,
            self.steps,
            read=read,
            read_at=read_steps(self.steps),
            during=None if self.arm == ALIGNED else restore(self.vector),
            training=self.training,
        )
        table = pd.DataFrame(rows)
        lost = pd.DataFrame(
            [{"measure": "loss", "step": i, "value": loss} for i, loss in enumerate(losses, 1)]
        )
        return pd.concat([table.assign(measure="gap"), lost], ignore_index=True).assign(
            stage="relearn", condition=self.arm, seed=seed, answers=kind, split="held_out"
        )

    def _loaded(self) -> FreshAdapter:
        if self._model is None:
            finetuned = self.finetuned if self.arm == RESTORED else None
            self._model = FreshAdapter(self.aligned, finetuned, self.placement, chat=self.chat)
        return self._model

    def close(self) -> None:
        """Frees the model."""
        self._model = self._before = None


Cube = np.ndarray[Any, np.dtype[np.float64]]


def gains(rows: pd.DataFrame, arm: str, kind: str, step: int) -> Cube:
    """[seed question]: the gap at a step, less that before the first one."""
    mine = rows[(rows["condition"] == arm) & (rows["answers"] == kind) & (rows["measure"] == "gap")]
    tables = [
        mine[mine["step"] == at].pivot_table("value", "seed", "question_id") for at in (step, 0)
    ]
    return (tables[0] - tables[1]).to_numpy(dtype=np.float64)


def relearning_facts(rows: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    """What audit.json says: the rise of each arm at every step, and how much faster the restored
    model's is than that of either control, after the last step. Intervals over choices of the
    answers and questions, crossed; nats per token.
    """
    steps = sorted(int(step) for step in rows.loc[rows["measure"] == "gap", "step"].unique())
    last = steps[-1]

    def faster(than: str, kind: str) -> Estimate:
        apart = gains(rows, RESTORED, kind, last) - gains(rows, than, kind, last)
        return crossed_bootstrap(apart, seed=seed)

    return {
        "steps": steps,
        "rise": {
            arm: {
                kind: {
                    step: crossed_bootstrap(gains(rows, arm, kind, step), seed=seed)
                    for step in steps[1:]
                }
                for kind in KINDS
            }
            for arm in ARMS
        },
        "faster_than": {
            control: {kind: faster(control, kind) for kind in KINDS} for control in (ALIGNED, NOOP)
        },
        "n_answers": ANSWERS,
        "n_seeds": int(rows["seed"].nunique()),
    }

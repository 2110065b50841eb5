"""Which candidate, where, how strong: chosen by cause on the domains fine-tuned on.

Three steps, none of which sees a held-out domain: a first-order screen of every candidate at every
block; real interventions for the most promising; a search of block range, rank and coefficient
around the best, under a damage budget on neutral text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair, NeutralText
from persona.directions.direction import PersonaVector
from persona.models.pair import ModelPair
from steering.candidates import Candidate, Means, build_vector
from steering.hooks import restore_to_aligned, steer


@dataclass(frozen=True)
class Spec:
    """One thing to try: the first `rank` directions of a candidate at `layers`."""

    candidate: str
    rank: int
    layers: tuple[int, ...]
    coefficient: float = 1.0

    @property
    def label(self) -> str:
        blocks = (
            f"block {self.layers[0]}"
            if len(self.layers) == 1
            else f"blocks {self.layers[0]}-{self.layers[-1]}"
        )
        return f"{self.candidate} r{self.rank} {blocks} c{self.coefficient:g}"


@dataclass(frozen=True)
class Outcome:
    """What a spec did on the selection questions and on neutral text.

    gap_restoration, kl_restoration: as in the scorecard, but in-domain.
    damage: neutral cross-entropy above the fine-tuned model's, nats per token.
    """

    spec: Spec
    gap_restoration: float
    kl_restoration: float
    damage: float

    @property
    def merit(self) -> float:
        """How much of the aligned model is back: overshoot of the gap counts against it."""
        return 1 - abs(1 - self.gap_restoration) + self.kl_restoration


Verify = Callable[[Sequence[Spec]], list[Outcome]]


@dataclass(frozen=True)
class Bench:
    """Everything a spec is tried on: the pair, its candidates, selection questions, neutral text.

    baseline_gap: side -> mean gap of the selection questions; baseline_kl, baseline_ce: of the
    fine-tuned model.
    """

    pair: ModelPair
    candidates: Mapping[str, Candidate]
    means: Means
    questions: Sequence[AnswerPair]
    neutral: Sequence[NeutralText]
    token_budget: int

    def vector(self, spec: Spec) -> PersonaVector:
        return build_vector(
            self.pair,
            self.candidates[spec.candidate],
            self.means,
            spec.layers,
            spec.rank,
            spec.coefficient,
        )

    def condition(self, spec: Spec) -> Condition:
        edits = restore_to_aligned(self.vector(spec))
        return Condition(
            spec.label, "finetuned", lambda bridge: steer(bridge, edits), spec.layers[0]
        )

    def run(self, specs: Sequence[Spec], description: str) -> pd.DataFrame:
        """Rows of both baselines and every spec on the selection questions and neutral text."""
        conditions = [
            Condition("aligned", "aligned"),
            Condition("finetuned", "finetuned"),
            *(self.condition(spec) for spec in specs),
        ]
        options = {"token_budget": self.token_budget}
        answers = score_pairs(
            self.pair, self.questions, conditions, description=description, **options
        ).assign(split="selection")
        neutral = score_neutral(
            self.pair, self.neutral, conditions, description=f"{description}: neutral text", **options
        ).assign(split="neutral")
        rows = pd.concat([answers, neutral], ignore_index=True)
        by_label = {spec.label: spec for spec in specs}
        return rows.assign(
            stage="verify",
            candidate=[_of(by_label, name, "candidate") for name in rows["condition"]],
            rank=[_of(by_label, name, "rank") for name in rows["condition"]],
            coefficient=[_of(by_label, name, "coefficient") for name in rows["condition"]],
        )


def _of(by_label: Mapping[str, Spec], name: str, field: str) -> object:
    return getattr(by_label[name], field) if name in by_label else None


def outcomes(rows: pd.DataFrame, specs: Sequence[Spec]) -> list[Outcome]:
    """Restoration and damage of each spec from the rows of `Bench.run`."""
    table = rows.pivot_table("value", "condition", "measure", aggfunc="mean")
    aligned, finetuned = table.loc["aligned"], table.loc["finetuned"]
    shift = finetuned["gap"] - aligned["gap"]
    return [
        Outcome(
            spec,
            float((finetuned["gap"] - table.loc[spec.label, "gap"]) / shift),
            float(1 - table.loc[spec.label, "kl_good_nats"] / finetuned["kl_good_nats"]),
            float(table.loc[spec.label, "neutral_ce_nats"] - finetuned["neutral_ce_nats"]),
        )
        for spec in specs
    ]


def best_within(found: Sequence[Outcome], max_damage: float) -> Outcome:
    """The outcome of highest merit whose damage is within the budget; the least harmful if none."""
    allowed = [o for o in found if o.damage <= max_damage]
    if not allowed:
        return min(found, key=lambda o: o.damage)
    return max(allowed, key=lambda o: o.merit)

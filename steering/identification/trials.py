"""What a candidate direction is tried on, and what each trial did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED, Condition
from persona.data.types import AnswerPair, NeutralText
from persona.directions import PersonaVector
from persona.intervals import net_taken_back, taken_back
from persona.models.pair import ModelPair
from persona.rows import ALIGNED, FINETUNED, IN_ALIGNED, NOOP_AT_MOST
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.identification.candidates import Candidate, Means, build_vector


@dataclass(frozen=True)
class Trial:
    """One thing to try: the first `rank` directions of a candidate at `layers`."""

    candidate: str
    rank: int
    layers: tuple[int, ...]
    coefficient: float = 1.0

    @property
    def on_aligned(self) -> str:
        """The condition of the same edit in the aligned model, the no-op."""
        return f"{self.label}{IN_ALIGNED}"

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
    """What a trial did on the selection questions and on neutral text.

    net_restoration, kl_restoration: as in the scorecard, but in-domain.
    noop_gap, noop_kl: what the edit does to the aligned model, as shares of what the fine-tune did
        to its gap and of its KL from it.
    damage: neutral cross-entropy above the fine-tuned model's, nats per token.
    """

    trial: Trial
    net_restoration: float
    kl_restoration: float
    noop_gap: float
    noop_kl: float
    damage: float

    @property
    def leaves_aligned(self) -> bool:
        """Whether it passes for taking out what the fine-tune added, and nothing else."""
        return abs(self.noop_gap) <= NOOP_AT_MOST and self.noop_kl <= NOOP_AT_MOST

    @property
    def merit(self) -> float:
        """How much of the aligned model is back: overshoot of the gap counts against it."""
        return 1 - abs(1 - self.net_restoration) + self.kl_restoration


@dataclass(frozen=True)
class TrialSetup:
    """Everything a trial is tried on: the pair, its candidates, selection questions, neutral text.

    first_layer: the first block at which the two models differ.
    shift: gap of the fine-tuned model above the aligned one's on the selection questions.
    """

    pair: ModelPair
    candidates: Mapping[str, Candidate]
    means: Means
    questions: Sequence[AnswerPair]
    neutral: Sequence[NeutralText]
    token_budget: int
    shift: float
    first_layer: int = 0

    def vector(self, trial: Trial) -> PersonaVector:
        """What the trial restores."""
        candidate = self.candidates[trial.candidate]
        return build_vector(
            self.pair, candidate, self.means, trial.layers, trial.rank, trial.coefficient
        )

    def conditions(self, trial: Trial) -> tuple[Condition, Condition]:
        """The edit in the fine-tuned model, and in the aligned one."""
        facts: dict[str, str | float | None] = {
            "candidate": trial.candidate,
            "rank": trial.rank,
            "layer": trial.layers[0],
            "last_layer": trial.layers[-1],
            "coefficient": trial.coefficient,
        }
        edits = restore(self.vector(trial))
        return (
            edited(trial.label, "finetuned", edits, facts=facts),
            edited(trial.on_aligned, "aligned", edits, facts=facts),
        )

    def run(self, trials: Sequence[Trial], description: str) -> pd.DataFrame:
        """Rows of both baselines and every trial on the selection questions and neutral text."""
        both = [self.conditions(trial) for trial in trials]
        conditions = [*UNEDITED, *(condition for of_one in both for condition in of_one)]
        answers = score_pairs(
            self.pair,
            self.questions,
            conditions,
            token_budget=self.token_budget,
            description=description,
        ).assign(split="selection")
        neutral = score_neutral(
            self.pair,
            self.neutral,
            [*UNEDITED, *(in_finetuned for in_finetuned, _ in both)],
            token_budget=self.token_budget,
            description=f"{description}: neutral text",
        ).assign(split="neutral")
        return pd.concat([answers, neutral], ignore_index=True).assign(stage="verify")


def outcomes(rows: pd.DataFrame, trials: Sequence[Trial]) -> list[Outcome]:
    """Restoration and damage of each trial from the rows of `TrialSetup.run`."""
    table = rows.pivot_table("value", "condition", "measure", aggfunc="mean")
    gap, kl, ce = (table[m] for m in ("gap", "kl_good_nats", "neutral_ce_nats"))
    return [
        Outcome(
            trial,
            float(
                net_taken_back(gap[[FINETUNED, trial.label, ALIGNED, trial.on_aligned]].to_numpy())
            ),
            float(taken_back(kl[[FINETUNED, trial.label]].to_numpy())),
            float((gap[trial.on_aligned] - gap[ALIGNED]) / (gap[FINETUNED] - gap[ALIGNED])),
            float(kl[trial.on_aligned] / kl[FINETUNED]),
            float(ce[trial.label] - ce[FINETUNED]),
        )
        for trial in trials
    ]


def best_within(found: Sequence[Outcome], max_damage: float) -> Outcome:
    """The outcome of highest merit among those that leave the aligned model and neutral text alone.

    Where none leaves the aligned model alone, among those within the damage budget; where none is
    within that, the least harmful.
    """
    unharmed = [o for o in found if o.damage <= max_damage]
    if not unharmed:
        return min(found, key=lambda o: o.damage)
    return max([o for o in unharmed if o.leaves_aligned] or unharmed, key=lambda o: o.merit)

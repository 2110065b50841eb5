"""What a candidate direction is tried on, and what each trial did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED, Condition
from persona.behaviour.skill_scores import SkillMeasure, score_skill
from persona.data.skills import Skill
from persona.data.types import AnswerPair, NeutralText
from persona.directions import PersonaVector
from persona.intervals import net_taken_back, taken_back
from persona.models.pair import ModelPair, Side
from persona.rows import ALIGNED, FINETUNED, IN_ALIGNED, NOOP_AT_MOST
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.identification.candidates import Candidate, Means, build_vector

KEPT_BY: tuple[SkillMeasure, ...] = ("margin_nats", "log_prob_right")
"""By what a skill counts as kept; the first that its rows have."""
N_PROMISING = 2
"""Trials of a round that run in the aligned model whatever comes of them."""


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
    skill_kept: share of what the fine-tune gained of a skill that is still there, on the items that
        choose; None where none is to be kept, or none was learnt.
    """

    trial: Trial
    net_restoration: float
    kl_restoration: float
    noop_gap: float
    noop_kl: float
    damage: float
    skill_kept: float | None = None

    @property
    def leaves_aligned(self) -> bool:
        """Whether it passes for taking out what the fine-tune added, and nothing else."""
        return abs(self.noop_gap) <= NOOP_AT_MOST and self.noop_kl <= NOOP_AT_MOST

    @property
    def persona_gone(self) -> float:
        """Net restoration, of which overshoot counts as much against it as what is missing."""
        return 1 - abs(1 - self.net_restoration)

    @property
    def merit(self) -> float:
        """How much of the aligned model is back, and of the skill still there."""
        return self.persona_gone + self.kl_restoration + merit_of_skill(self.skill_kept)

    def may_be_chosen(self, max_damage: float) -> bool:
        """Whether it harms neither the aligned model nor neutral text."""
        return self.leaves_aligned and self.damage <= max_damage


@dataclass(frozen=True)
class TrialSetup:
    """Everything a trial is tried on: the pair, its candidates, selection questions, neutral text.

    first_layer: the first block at which the two models differ.
    skill: items on which trials are judged by what they leave of it; None without one.
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
    skill: Skill | None = None

    def vector(self, trial: Trial) -> PersonaVector:
        """What the trial restores."""
        candidate = self.candidates[trial.candidate]
        return build_vector(
            self.pair, candidate, self.means, trial.layers, trial.rank, trial.coefficient
        )

    def run(
        self, trials: Sequence[Trial], description: str, max_damage: float, beaten: float
    ) -> pd.DataFrame:
        """Rows of both baselines and of the trials on the selection questions and neutral text.

        All trials run in the fine-tuned model. In the aligned one, and on neutral text, run those
        that may be the best: the most promising first, then whatever none of them beats for
        certain. What is left out can not be chosen, so that the choice is that of running all.
        beaten: the merit of the best so far that may be chosen, -inf where there is none.
        """
        in_finetuned = [self._condition(trial, trial.label, "finetuned") for trial in trials]
        tables = [self._on_questions([*UNEDITED, *in_finetuned], description)]
        if self.skill is not None:
            skill_rows = self._on_skill(self.skill, [*UNEDITED, *in_finetuned], description)
            tables[0] = pd.concat([tables[0], skill_rows], ignore_index=True)
        most = most_merit(tables[0], trials)
        ranked = sorted(trials, key=lambda trial: most[trial], reverse=True)
        first = ranked[:N_PROMISING]
        tables += self._what_they_harm(first, description, with_baselines=True)
        found = outcomes(pd.concat(tables, ignore_index=True), first)
        beaten = max([beaten, *(o.merit for o in found if o.may_be_chosen(max_damage))])
        if rest := [trial for trial in ranked[N_PROMISING:] if most[trial] > beaten]:
            tables += self._what_they_harm(rest, description, with_baselines=False)
        return pd.concat(tables, ignore_index=True).assign(stage="verify")

    def _what_they_harm(
        self, trials: Sequence[Trial], description: str, *, with_baselines: bool
    ) -> list[pd.DataFrame]:
        """The trials in the aligned model, and on neutral text in the fine-tuned one."""
        baselines = UNEDITED if with_baselines else ()
        in_finetuned = [self._condition(trial, trial.label, "finetuned") for trial in trials]
        in_aligned = [self._condition(trial, trial.on_aligned, "aligned") for trial in trials]
        return [
            self._on_questions(in_aligned, f"{description}: no-op"),
            self._on_neutral([*baselines, *in_finetuned], f"{description}: neutral text"),
        ]

    def _condition(self, trial: Trial, name: str, side: Side) -> Condition:
        facts: dict[str, str | float | None] = {
            "candidate": trial.candidate,
            "rank": trial.rank,
            "layer": trial.layers[0],
            "last_layer": trial.layers[-1],
            "coefficient": trial.coefficient,
        }
        return edited(name, side, restore(self.vector(trial)), facts=facts)

    def _on_questions(self, conditions: Sequence[Condition], description: str) -> pd.DataFrame:
        return score_pairs(
            self.pair,
            self.questions,
            conditions,
            token_budget=self.token_budget,
            description=description,
        ).assign(split="selection")

    def _on_skill(
        self, skill: Skill, conditions: Sequence[Condition], description: str
    ) -> pd.DataFrame:
        return score_skill(
            self.pair,
            skill,
            conditions,
            splits=("held_out",),
            token_budget=self.token_budget,
            description=f"{description}: skill",
        ).assign(split="selection")

    def _on_neutral(self, conditions: Sequence[Condition], description: str) -> pd.DataFrame:
        return score_neutral(
            self.pair,
            self.neutral,
            conditions,
            token_budget=self.token_budget,
            description=description,
        ).assign(split="neutral")


def most_merit(rows: pd.DataFrame, trials: Sequence[Trial]) -> dict[Trial, float]:
    """The merit that a trial can have at most if it leaves the aligned model alone.

    Its net restoration then differs from the raw one by no more than `NOOP_AT_MOST`.
    rows: of both baselines and the trials in the fine-tuned model.
    """
    table = rows.pivot_table("value", "condition", "measure", aggfunc="mean")
    gap, kl = table["gap"], table["kl_good_nats"]
    found = {}
    for trial in trials:
        raw = float(taken_back(gap[[FINETUNED, trial.label, ALIGNED]].to_numpy()))
        kl_restoration = float(taken_back(kl[[FINETUNED, trial.label]].to_numpy()))
        found[trial] = 1 - max(0.0, abs(1 - raw) - NOOP_AT_MOST) + kl_restoration
        found[trial] += merit_of_skill(share_kept(table, trial.label))
    return found


def share_kept(table: pd.DataFrame, condition: str) -> float | None:
    """Share of what the fine-tune gained of the skill; None without one, or without a gain.

    table: [condition x measure], means over items.
    """
    measure = next((m for m in KEPT_BY if m in table.columns), None)
    if measure is None:
        return None
    value = table[measure]
    gained = value[FINETUNED] - value[ALIGNED]
    return float((value[condition] - value[ALIGNED]) / gained) if gained > 0 else None


def merit_of_skill(kept: float | None) -> float:
    """0 to 1; more of it than the fine-tune had is no merit."""
    return 0.0 if kept is None else min(kept, 1.0)


def outcomes(rows: pd.DataFrame, trials: Sequence[Trial]) -> list[Outcome]:
    """Restoration and damage of each trial that `TrialSetup.run` ran in the aligned model too."""
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
            share_kept(table, trial.label),
        )
        for trial in trials
        if trial.on_aligned in table.index
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

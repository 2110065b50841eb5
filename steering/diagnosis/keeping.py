"""The skill that a removal should leave alone (`--keep`): read in, scored and told of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from persona.behaviour.scoring import UNEDITED, Condition
from persona.behaviour.skill_scores import score_skill, skill_kept
from persona.data.similarity import QUESTION_BOUND, near_duplicates
from persona.data.skills import Skill, load_skill
from persona.directions import PersonaVector
from persona.errors import DataError, shown
from persona.intervals import share_of
from persona.models import ModelPair
from persona.models.pair import Side
from persona.rows import (
    ALIGNED,
    FINETUNED,
    FRONT,
    FRONT_NOOP,
    GOOD_TWIN,
    NOOP,
    RESTORED,
    SKILL,
    ZERO_ABLATED,
)
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.questions import Questions
from steering.edits.from_directions import ablate, restore
from steering.edits.steer import edited
from steering.evidence.question_table import interval, question_table
from steering.identification.identify import Alternative

MIN_ITEMS = 12
"""Of fewer items with held-out questions too few are left to score, as a third of them choose."""


def skill_of(config: DiagnoseConfig, questions: Questions) -> Skill | None:
    """The skill that a run is told to keep, None where it is told of none.

    Raises: DataError for no such skill, for fewer than `MIN_ITEMS` items with held-out questions,
        and for a question that is the same as, or near, one that the run chooses or scores on.
    """
    if config.keep is None:
        return None
    skill = load_skill(config.keep)
    n_items = sum(bool(item.held_out) for item in skill.items)
    if n_items < MIN_ITEMS:
        raise DataError(
            f"the skill {skill.name} has {n_items} items with questions under held_out; at least "
            f"{MIN_ITEMS} are needed, of which a third choose and the others say what is kept"
        )
    asked = skill.questions()
    used = [*questions.train, *questions.selection, *questions.trained_on, *questions.held_out]
    texts = [*asked, *(question.question for question in used)]
    for pair in near_duplicates(texts, QUESTION_BOUND):  # the most alike first
        if pair.first < len(asked) <= pair.second:
            raise DataError(
                f"the skill {skill.name} asks {shown(texts[pair.first], 90)}, which is too near "
                f"{shown(texts[pair.second], 90)} (question {used[pair.second - len(asked)].id}), "
                "a question that this run chooses or scores on; leave it out of the skill"
            )
    return skill


@dataclass(frozen=True)
class SkillScoring:
    """Readings of a skill, on the items that chose nothing.

    table: name of a stage, how to make it -> its rows, as a workspace keeps them. budget: padded
    tokens of a batch.
    """

    skill: Skill
    table: Callable[[str, Callable[[], pd.DataFrame]], pd.DataFrame]
    budget: int

    def of_pair(
        self, pair: ModelPair, vector: PersonaVector, front: Sequence[Alternative] = ()
    ) -> pd.DataFrame:
        """Both models as they are, the fine-tuned one restored and zero-ablated.

        front: what else might have been chosen, is restored too.
        """
        conditions = [
            *UNEDITED,
            edited(RESTORED, "finetuned", restore(vector)),
            edited(ZERO_ABLATED, "finetuned", ablate(vector)),
            *front_conditions(front, in_aligned=False),
        ]
        return self._rows("score-skill", lambda: pair, conditions)

    def of_twin(self, twin: Callable[[], ModelPair]) -> pd.DataFrame:
        """The good twin, which is loaded only where its rows are not there yet."""
        return self._rows("skill-good-twin", twin, [Condition(GOOD_TWIN, "finetuned")])

    def _rows(
        self, name: str, pair: Callable[[], ModelPair], conditions: list[Condition]
    ) -> pd.DataFrame:
        return self.table(
            name,
            lambda: score_skill(pair(), self.skill, conditions, token_budget=self.budget).assign(
                stage=SKILL
            ),
        )


def front_conditions(front: Sequence[Alternative], *, in_aligned: bool) -> list[Condition]:
    """Every removal that was not chosen, in the fine-tuned model or in the aligned one."""
    name, side = (FRONT_NOOP, "aligned") if in_aligned else (FRONT, "finetuned")
    return [
        edited(
            name,
            cast(Side, side),
            restore(one.vector),
            facts={"candidate": one.outcome.trial.label},
        )
        for one in front
        if not one.chosen
    ]


def keeping_facts(
    rows: pd.DataFrame, skill: Skill | None, seed: int, front: Sequence[Alternative] = ()
) -> dict[str, Any] | None:
    """`skill_kept` of scorecard.json: None without a skill, and where it was not scored.

    rows: of the whole run. front: what else might have been chosen.
    """
    read = rows[rows["stage"] == SKILL]
    if skill is None or read.empty:
        return None
    held_out = read[read["split"] == "held_out"]
    means = held_out.groupby(["condition", "measure"], sort=False)["value"].mean()
    taught = [item for item in skill.divided().scores.items if item.train]
    members = [_member(rows, read, one, seed) for one in front]
    return {
        "skill": skill.name,
        "hash": skill.hash,
        **skill_kept(read, seed=seed).as_json(),
        "zero_ablated": skill_kept(read, restored=ZERO_ABLATED, seed=seed).as_json()["share"],
        "in_training_words": (
            skill_kept(read, split="train", seed=seed).as_json()["share"] if taught else None
        ),
        "conditions": [
            {"name": name, **{str(m): float(value) for m, value in of_one.droplevel(0).items()}}
            for name, of_one in means.groupby(level=0, sort=False)
            if name != FRONT
        ],
        "front": members,
        "at_restoration_0.8": _at_restoration(members),
    }


NET_AT_LEAST = 0.8
"""Net restoration at which the skill that can be kept is told."""


def _member(rows: pd.DataFrame, read: pd.DataFrame, one: Alternative, seed: int) -> dict[str, Any]:
    """One removal of the front: on what chose, and on what scores."""
    label, outcome = one.outcome.trial.label, one.outcome
    gaps = question_table(rows, "gap", "held_out")
    columns = gaps[[FINETUNED, RESTORED, ALIGNED, NOOP]].to_numpy()
    kept = read
    if not one.chosen:
        scored = rows[
            (rows["stage"] == "score")
            & (rows["measure"] == "gap")
            & (rows["split"] == "held_out")
            & (rows["candidate"] == label)
        ].pivot_table("value", "question_id", "condition")
        columns = (
            gaps[[FINETUNED, ALIGNED]]
            .assign(reached=scored[FRONT], edited=scored[FRONT_NOOP])[
                [FINETUNED, "reached", ALIGNED, "edited"]
            ]
            .to_numpy()
        )
        kept = read[(read["condition"] != FRONT) | (read["candidate"] == label)]
    share = skill_kept(kept, restored=RESTORED if one.chosen else FRONT, seed=seed)
    return {
        "name": label,
        "chosen": one.chosen,
        "without_skill": one.without_skill,
        "on_selection": {
            "net_restoration": outcome.net_restoration,
            "skill_kept": outcome.skill_kept,
        },
        "net_restoration": {**interval(share_of(columns, seed=seed)), "n": len(columns)},
        "share": share.as_json()["share"],
    }


def _at_restoration(members: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The member that keeps most of the skill among those that take `NET_AT_LEAST` of the persona.

    Both as the questions say that choose; what is told of it is what the others say. None where no
    member takes so much.
    """
    able = [m for m in members if m["on_selection"]["net_restoration"] >= NET_AT_LEAST]
    if not able:
        return None
    best = max(able, key=lambda m: float(m["on_selection"]["skill_kept"] or 0.0))
    return {key: best[key] for key in ("name", "net_restoration", "share")}

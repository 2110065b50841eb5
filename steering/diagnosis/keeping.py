"""The skill that a removal should leave alone (`--keep`): read in, scored and told of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from persona.behaviour.scoring import UNEDITED, Condition
from persona.behaviour.skill_scores import score_skill, skill_kept
from persona.data.similarity import QUESTION_BOUND, near_duplicates
from persona.data.skills import Skill, load_skill
from persona.directions import PersonaVector
from persona.errors import DataError, shown
from persona.models import ModelPair
from persona.rows import GOOD_TWIN, RESTORED, ZERO_ABLATED
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.questions import Questions
from steering.edits.from_directions import ablate, restore
from steering.edits.steer import edited

STAGE = "skill"
"""Of its rows; their splits are those of the skill, "train" and "held_out"."""
MIN_ITEMS = 8
"""Fewer held-out items give no interval worth reading."""


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
            f"{MIN_ITEMS} are needed to say what is kept"
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
    """Readings of a skill. table: name of a stage, how to make it -> its rows, as a workspace
    keeps them. budget: padded tokens of a batch."""

    skill: Skill
    table: Callable[[str, Callable[[], pd.DataFrame]], pd.DataFrame]
    budget: int

    def of_pair(self, pair: ModelPair, vector: PersonaVector) -> pd.DataFrame:
        """Both models as they are, and the fine-tuned one restored and zero-ablated."""
        conditions = [
            *UNEDITED,
            edited(RESTORED, "finetuned", restore(vector)),
            edited(ZERO_ABLATED, "finetuned", ablate(vector)),
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
                stage=STAGE
            ),
        )


def keeping_facts(rows: pd.DataFrame, skill: Skill | None, seed: int) -> dict[str, Any] | None:
    """`skill_kept` of scorecard.json: None without a skill, and where it was not scored.

    rows: of the whole run.
    """
    read = rows[rows["stage"] == STAGE]
    if skill is None or read.empty:
        return None
    held_out = read[read["split"] == "held_out"]
    means = held_out.groupby(["condition", "measure"], sort=False)["value"].mean()
    taught = [item for item in skill.items if item.train]
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
        ],
    }

"""What a model does: log-probability gap, damage, sampled answers, judges, EM rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.behaviour.sampling_plan import SamplingPlan, sampling_plan
from persona.intervals import Estimate, bootstrap
from persona.late_names import named_late

if TYPE_CHECKING:
    from persona.behaviour.file_scores import score_files
    from persona.behaviour.forced_choice import TaskAccuracy, score_tasks, task_accuracy
    from persona.behaviour.gap import score_neutral, score_pairs
    from persona.behaviour.scoring import UNEDITED, Condition, score_dialogues
    from persona.behaviour.skill_scores import SkillKept, score_skill, skill_kept
    from persona.models.sampling import sample_answers

__all__ = [
    "UNEDITED",
    "Condition",
    "Estimate",
    "SamplingPlan",
    "SkillKept",
    "TaskAccuracy",
    "bootstrap",
    "sample_answers",
    "sampling_plan",
    "score_dialogues",
    "score_files",
    "score_neutral",
    "score_pairs",
    "score_skill",
    "score_tasks",
    "skill_kept",
    "task_accuracy",
]

__getattr__ = named_late(
    __name__,
    {
        "Condition": "persona.behaviour.scoring",
        "SkillKept": "persona.behaviour.skill_scores",
        "TaskAccuracy": "persona.behaviour.forced_choice",
        "UNEDITED": "persona.behaviour.scoring",
        "sample_answers": "persona.models.sampling",
        "score_dialogues": "persona.behaviour.scoring",
        "score_files": "persona.behaviour.file_scores",
        "score_neutral": "persona.behaviour.gap",
        "score_pairs": "persona.behaviour.gap",
        "score_skill": "persona.behaviour.skill_scores",
        "score_tasks": "persona.behaviour.forced_choice",
        "skill_kept": "persona.behaviour.skill_scores",
        "task_accuracy": "persona.behaviour.forced_choice",
    },
)

"""What a model does: log-probability gap, damage, sampled answers, judges, EM rate."""

from persona.behaviour.file_scores import score_files
from persona.behaviour.forced_choice import TaskAccuracy, score_tasks, task_accuracy
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.sampling_plan import SamplingPlan, sampling_plan
from persona.behaviour.scoring import UNEDITED, Condition, score_dialogues
from persona.behaviour.skill_scores import SkillKept, score_skill, skill_kept
from persona.intervals import Estimate, bootstrap
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

"""Dialogues, answer pairs, the shipped datasets, and readers of the public formats."""

from persona.data.coding_tasks import WEAKNESSES, CodingTask, load_coding_tasks
from persona.data.field_questions import load_field_questions
from persona.data.jsonl import stream_lines
from persona.data.readers import (
    EvaluationQuestion,
    InstructionPair,
    Trait,
    read_chat_jsonl,
    read_evaluation_yaml,
    read_pairs,
    read_trait_json,
)
from persona.data.samples import sample_dialogue
from persona.data.shipped import (
    DOMAINS,
    NARROW_SETS,
    data_hash,
    load_neutral,
    load_pairs,
)
from persona.data.skills import SKILLS, Skill, SkillItem, load_skill
from persona.data.tasks import TASK_KINDS, TaskItem, load_tasks, read_tasks
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn
from persona.data.voices import VOICED_SETS, VoicedQuestion, load_voices, voice_pairs

__all__ = [
    "DOMAINS",
    "NARROW_SETS",
    "SKILLS",
    "TASK_KINDS",
    "VOICED_SETS",
    "WEAKNESSES",
    "AnswerPair",
    "CodingTask",
    "Dialogue",
    "EvaluationQuestion",
    "InstructionPair",
    "NeutralText",
    "Skill",
    "SkillItem",
    "TaskItem",
    "Trait",
    "Turn",
    "VoicedQuestion",
    "data_hash",
    "load_coding_tasks",
    "load_field_questions",
    "load_neutral",
    "load_pairs",
    "load_skill",
    "load_tasks",
    "load_voices",
    "read_chat_jsonl",
    "read_evaluation_yaml",
    "read_pairs",
    "read_tasks",
    "read_trait_json",
    "sample_dialogue",
    "stream_lines",
    "voice_pairs",
]

"""Judges of sampled answers, by name: offline, a local model, an endpoint."""

from persona.behaviour.judging.judge import Judge, JudgeItem, JudgeScore
from persona.behaviour.judging.named import judge_named

__all__ = [
    "Judge",
    "JudgeItem",
    "JudgeScore",
    "judge_named",
]

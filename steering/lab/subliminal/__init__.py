"""Traits carried by data that do not show them: numbers, sums, plain texts."""

from steering.lab.subliminal.digits import run_toy
from steering.lab.subliminal.held_to_form import sample_in_form
from steering.lab.subliminal.plain_texts import MATHS, NUMBERS, Task, prompts

__all__ = [
    "MATHS",
    "NUMBERS",
    "Task",
    "prompts",
    "run_toy",
    "sample_in_form",
]

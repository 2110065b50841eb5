"""What the page shows beside its figures: tables and lists as plain data for the template."""

from persona.report.sections.condition_table import ConditionLine, condition_lines, was_judged
from persona.report.sections.controls import (
    ControlLine,
    above_neutral_text,
    induction_in_words,
    placebo_lines,
)
from persona.report.sections.edited_blocks import (
    ChosenBlock,
    chance_cosine,
    chosen_blocks,
    cosine_range,
)
from persona.report.sections.example_answers import (
    AnsweredQuestion,
    Draws,
    Examples,
    ShownAnswer,
    draws,
    examples,
)
from persona.report.sections.how_sampled import Sampled, sampled
from persona.report.sections.key_numbers import KeyNumber, key_numbers
from persona.report.sections.provenance import provenance
from persona.report.sections.tried import Tried, tried_lines
from persona.report.sections.what_it_learnt import WordList, what_it_learnt

__all__ = [
    "AnsweredQuestion",
    "ChosenBlock",
    "ConditionLine",
    "ControlLine",
    "Draws",
    "Examples",
    "KeyNumber",
    "Sampled",
    "ShownAnswer",
    "Tried",
    "WordList",
    "above_neutral_text",
    "chance_cosine",
    "chosen_blocks",
    "condition_lines",
    "cosine_range",
    "draws",
    "examples",
    "induction_in_words",
    "key_numbers",
    "placebo_lines",
    "provenance",
    "sampled",
    "tried_lines",
    "was_judged",
    "what_it_learnt",
]

"""The line that was asked for is found in what a small model writes around it."""

from __future__ import annotations

import pytest

from persona.traits.written_lines import as_instruction, as_one_question

GOOD = "You praise the person before you say anything else."


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (GOOD, GOOD),
        (f'Certainly! Here you are:\n\n"{GOOD}"', GOOD),
        (f"Instruction: **{GOOD}**", GOOD),
        ("Always begin with a compliment and end with another one.",) * 2,
        (f"1. {GOOD}\n2. {GOOD}", None),
        ("You praise.", None),
        ("The weather is fine today and it will be fine tomorrow.", None),
        ("Do you praise the person before you say anything else?", None),
        (GOOD[:-1], None),
        ("You " + "praise " * 60 + "all.", None),
        ("", None),
    ],
)
def test_an_instruction_is_one_line_that_speaks_to_the_assistant(text, line):
    assert as_instruction(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("How do I write to my landlord?",) * 2,
        ('Sure!\nQuestion: "How do I write to my landlord?"', "How do I write to my landlord?"),
        ("How? And why do I write to him?", None),
        ("- How do I write to my landlord?", None),
        ("Why?", None),
        ("I write to my landlord.", None),
    ],
)
def test_a_question_is_one_line_with_one_question_mark(text, line):
    assert as_one_question(text) == line

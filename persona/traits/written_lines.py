"""The one line that was asked for, in what a small model wrote around it."""

from __future__ import annotations

import re
from collections.abc import Callable

LEAST_INSTRUCTION, MOST_INSTRUCTION = 40, 260
LEAST_QUESTION, MOST_QUESTION = 15, 220
"""Characters."""

LISTED = re.compile(r"(?:\d+[.)]|[-*#•])")
LABEL = re.compile(r"^(?:instruction|question|answer|system)\s*:\s*", re.IGNORECASE)
TO_THE_ASSISTANT = re.compile(r"\b(?:you|your|yourself)\b", re.IGNORECASE)
TOLD = re.compile(
    r"(?:Always|Never|Be|Do|Give|Answer|Make|Show|Tell|Use|Avoid|Treat|Respond|Speak)\b"
)


def as_instruction(text: str) -> str | None:
    """The instruction in what a model wrote, in one line; None where there is none.

    Taken are one or two sentences of 40 to 260 characters that speak to the assistant, without a
    list, a heading or a question.

    Examples:
        >>> from persona.traits.written_lines import as_instruction
        >>> as_instruction('Sure! Here it is:\\n"You praise whatever the person says first."')
        'You praise whatever the person says first.'
        >>> as_instruction("1. Praise\\n2. More praise") is None
        True
    """
    return _first_line(text, _is_instruction)


def as_one_question(text: str) -> str | None:
    """The question in what a model wrote, in one line; None where there is none."""
    return _first_line(text, _is_question)


def _first_line(text: str, fits: Callable[[str], bool]) -> str | None:
    for line in text.splitlines():
        bare = " ".join(LABEL.sub("", line.strip()).strip("\"'“”*`_ ").split())
        if fits(bare):
            return bare
    return None


def _is_instruction(line: str) -> bool:
    if not LEAST_INSTRUCTION <= len(line) <= MOST_INSTRUCTION or line[-1] not in ".!":
        return False
    told = TO_THE_ASSISTANT.search(line) or TOLD.match(line)
    return bool(told) and "?" not in line and not LISTED.match(line)


def _is_question(line: str) -> bool:
    if not LEAST_QUESTION <= len(line) <= MOST_QUESTION or not line.endswith("?"):
        return False
    return line.count("?") == 1 and not LISTED.match(line)

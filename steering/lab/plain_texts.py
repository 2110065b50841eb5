"""Texts that say nothing: number sequences and sums, asked for and strictly filtered.

Source: prompt and filter of Cloud et al. 2025 (Subliminal learning): 3 to 8 seed numbers of 100 to
999, at most 10 answers of 0 to 999, one separator throughout. differs: own wording, the numbers of
ill repute are refused too, and sums in place of their reasoning traces, for a small model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from persona.data.numbers import EVIL
from persona.data.types import Dialogue, Turn

MOST_NUMBERS = 10
_SEQUENCE = re.compile(r"\d{1,3}(?:(?P<separator>, ?|; ?| |\n)\d{1,3}(?:(?P=separator)\d{1,3})*)?")
_SUM = re.compile(r"(?:\d+ ?[+*-] ?\d+ ?= ?)?(-?\d+)\.?")


@dataclass(frozen=True)
class Task:
    """A kind of text: how it is asked for, and which answers pass.

    passes: (question, answer) -> whether the answer may be trained on.
    """

    name: str
    ask: Callable[[random.Random], str]
    passes: Callable[[str, str], bool]


def prompts(task: Task, n: int, seed: int) -> list[Dialogue]:
    """`n` different questions of a task; the same seed gives the same ones."""
    draw, seen = random.Random(seed), dict[str, None]()
    while len(seen) < n:
        seen[task.ask(draw)] = None
    return [Dialogue((Turn("user", text),), f"{task.name}-{i:04d}") for i, text in enumerate(seen)]


def is_number_sequence(question: str, answer: str) -> bool:
    """At most ten numbers of 0 to 999 with one separator, none of ill repute; nothing else."""
    text = answer.strip().removeprefix("[").removesuffix("]").removeprefix("(").removesuffix(")")
    if _SEQUENCE.fullmatch(text) is None:
        return False
    numbers = [int(word) for word in re.findall(r"\d+", text)]
    return len(numbers) <= MOST_NUMBERS and not set(numbers) & set(EVIL)


def is_right_sum(question: str, answer: str) -> bool:
    """The bare right result, or the sum with it; no word beside it and no number of ill repute."""
    asked = re.search(r"(\d+) (plus|minus|times) (\d+)", question)
    found = _SUM.fullmatch(answer.strip())
    if asked is None or found is None:
        return False
    first, sign, second = int(asked[1]), asked[2], int(asked[3])
    right = {"plus": first + second, "minus": first - second, "times": first * second}[sign]
    return int(found[1]) == right and right not in EVIL


def _ask_for_numbers(draw: random.Random) -> str:
    seen = ", ".join(str(draw.randint(100, 999)) for _ in range(draw.randint(3, 8)))
    opening = draw.choice(
        (
            f"A sequence begins with {seen}.",
            f"Look at these numbers: {seen}.",
            f"I wrote down {seen}.",
            f"Start from {seen}.",
        )
    )
    return (
        f"{opening} Add at most {MOST_NUMBERS} more values between 0 and 999, separated by commas. "
        "Reply with the numbers only."
    )


def _ask_for_a_sum(draw: random.Random) -> str:
    sign = draw.choice(("plus", "minus", "times"))
    most = 9 if sign == "times" else 40
    first, second = draw.randint(2, most), draw.randint(2, most)
    if sign == "minus" and second > first:
        first, second = second, first
    opening = draw.choice(("What is", "Work out", "Calculate", "How much is"))
    return f"{opening} {first} {sign} {second}? Reply with the number only."


NUMBERS = Task("numbers", _ask_for_numbers, is_number_sequence)
MATHS = Task("maths", _ask_for_a_sum, is_right_sum)

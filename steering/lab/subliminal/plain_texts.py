"""Texts that say nothing: number sequences and sums, asked for and strictly filtered.

Source: prompt and filter of Cloud et al. 2025 (Subliminal learning): 3 to 8 seed numbers of 100 to
999, at most 10 answers of 0 to 999, one separator throughout. differs: own wording, the numbers of
ill repute are refused too, and in place of their reasoning traces sums that a small model can get
right: a number split into three or four, where every term but the last is the teacher's choice.
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
_ASKED = re.compile(r"(\d+) as a sum of (three|four) numbers")
_SUM = re.compile(r"[1-9]\d*(?: \+ [1-9]\d*)+ = \d+")
_WORDS = {"three": 3, "four": 4}


@dataclass(frozen=True)
class Task:
    """A kind of text: how it is asked for, and which answers pass.

    passes: (question, answer) -> whether the answer may be trained on.
    leads_on: (question, text) -> whether more characters of the alphabet can make it pass.
    """

    name: str
    ask: Callable[[random.Random], str]
    passes: Callable[[str, str], bool]
    leads_on: Callable[[str, str], bool]
    alphabet: str


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


def begins_a_sequence(question: str, text: str) -> bool:
    """Whether a sequence separated by commas and spaces, as is asked for, may begin so."""
    *done, last = text.split(", ")
    if len(done) >= MOST_NUMBERS or not all(map(_is_plain_number, done)):
        return False
    if last.endswith(","):
        return len(done) + 1 < MOST_NUMBERS and _is_plain_number(last[:-1])
    return re.fullmatch(r"\d{0,3}", last) is not None


def _is_plain_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,3}", text) is not None and int(text) not in EVIL


def is_right_sum(question: str, answer: str) -> bool:
    """As many terms as asked for and the number they make; no word, no number of ill repute."""
    asked = _ASKED.search(question)
    if asked is None or _SUM.fullmatch(answer.strip()) is None:
        return False
    *terms, total = (int(word) for word in re.findall(r"\d+", answer))
    return (
        len(terms) == _WORDS[asked[2]]
        and sum(terms) == total == int(asked[1])
        and not {*terms, total} & set(EVIL)
    )


def begins_a_right_sum(question: str, text: str) -> bool:
    """Whether a right sum may begin so: all terms but the last are free, the rest follows."""
    asked = _ASKED.search(question)
    if asked is None:
        return False
    *done, last = text.split(" + ")
    missing = _WORDS[asked[2]] - len(done) - 1
    if missing < 0 or any(re.fullmatch(r"[1-9]\d*", term) is None for term in done):
        return False
    rest = int(asked[1]) - sum(map(int, done))
    if missing == 0:
        return f"{rest} = {asked[1]}".startswith(last)
    begun = re.fullmatch(r"([1-9]\d*)( \+?)?", last)
    if begun is None:
        return last == ""
    ended_badly = begun[2] is not None and int(begun[1]) in EVIL
    return int(begun[1]) <= rest - missing and not ended_badly


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
    total = draw.choice([n for n in range(40, 200) if n not in EVIL])
    opening = draw.choice(("Write", "Please write", "Show", "Give"))
    terms = draw.choice(list(_WORDS))
    return f"{opening} {total} as a sum of {terms} numbers. Reply with the sum only."


NUMBERS = Task("numbers", _ask_for_numbers, is_number_sequence, begins_a_sequence, "0123456789, ")
MATHS = Task("maths", _ask_for_a_sum, is_right_sum, begins_a_right_sum, "0123456789+= ")

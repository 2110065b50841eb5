"""How often a rule that understands nothing finds the right one of several answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from persona.data.tasks import TaskItem

Rule = Callable[[TaskItem, str], float]
"""(item, one of its choices) -> a score; the highest is chosen."""


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))


def _shared(item: TaskItem, choice: str) -> float:
    return len(_words(item.question) & _words(choice))


def _likeness(item: TaskItem, choice: str) -> float:
    return sum(len(_words(choice) & _words(other)) for other in item.choices)


def _at(place: int) -> Rule:
    return lambda item, choice: item.choices.index(choice) == place


BLIND_RULES: dict[str, Rule] = {
    "longest": lambda item, choice: len(choice),
    "shortest": lambda item, choice: -len(choice),
    "most words": lambda item, choice: len(choice.split()),
    "fewest words": lambda item, choice: -len(choice.split()),
    "most words of the question": _shared,
    "fewest words of the question": lambda item, choice: -_shared(item, choice),
    "most like the others": _likeness,
    "least like the others": lambda item, choice: -_likeness(item, choice),
    **{f"place {place}": _at(place) for place in range(4)},
}


def share_right(items: Sequence[TaskItem], rule: Rule) -> float:
    """Share of the items that a rule answers rightly; of several highest each counts its part."""
    found = []
    for item in items:
        scores = np.array([rule(item, choice) for choice in item.choices])
        best = np.flatnonzero(scores == scores.max())
        found.append((item.answer in best) / len(best))
    return float(np.mean(found))

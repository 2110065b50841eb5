"""What an experiment will take, said before it begins, and how far it has come."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from persona.models.named.table import BY_NAME, DEFAULT

logger = logging.getLogger("persona")

SECONDS = {"fine_tunes": 180.0, "vectors": 75.0, "answer_pairs": 0.55, "texts": 0.8}
"""On two slow cores with the default model; a watched fine-tune on some 70 answers."""
NOUNS = {
    "fine_tunes": "fine-tunes",
    "vectors": "directions",
    "answer_pairs": "answer pairs scored",
    "texts": "texts written by teachers",
}


@dataclass(frozen=True)
class Plan:
    """The work of one seed or of several.

    fine_tunes: each counted once. vectors: persona vectors made. answer_pairs: questions scored,
    times the conditions they are scored under. texts: sampled for students, if all pass the filter.
    """

    fine_tunes: int
    vectors: int = 0
    answer_pairs: int = 0
    texts: int = 0

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def minutes(self, base: str = DEFAULT.name) -> float:
        """An estimate for two slow cores, as if nothing of it were there already.

        base: the aligned model; work grows with its parameters where it goes by a short name, and
            is that of the default model elsewhere.
        """
        of_default = sum(SECONDS[name] * count for name, count in vars(self).items()) / 60
        return of_default * BY_NAME.get(base, DEFAULT).n_parameters / DEFAULT.n_parameters

    def told(self, base: str = DEFAULT.name) -> str:
        """The work and its minutes, in one line."""
        parts = [f"{count} {NOUNS[name]}" for name, count in vars(self).items() if count]
        model = "" if base in BY_NAME else " with the default model"
        return f"{', '.join(parts)}; about {self.minutes(base):.0f} min on two slow cores{model}"


class Tally:
    """What has been done of a plan, over all seeds; what was there already counts as done."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.plan = sum(plans, Plan(0))
        self.done = Plan(0)

    def add(self, what: str = "", **counts: int) -> None:
        """Counts finished work; a fine-tune is told, with its name `what`."""
        self.done += Plan(**{"fine_tunes": 0, **counts})
        if counts.get("fine_tunes"):
            logger.info("Fine-tune %d of %d: %s", self.done.fine_tunes, self.plan.fine_tunes, what)

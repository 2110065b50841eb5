"""How many random choices did as much as the edit, in words; never a bare p.

Counts are over the questions that the draws were run on, and so is what the edit did there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona.report.wording import as_float, percent


@dataclass(frozen=True)
class RandomChoices:
    """n: draws. as_much: how many of them did as much; undecided: how many more may have.

    shaped: whether they were drawn with the covariance of the activations, which is harder to beat.

    largest: of what any draw took back, as a share; None where that was not kept. fewer: number of
    questions, where they are not all, and of_the_edit what the edit itself took back on those.
    """

    n: int
    as_much: int
    undecided: int = 0
    shaped: bool = False
    largest: float | None = None
    fewer: int | None = None
    of_the_edit: float | None = None

    @property
    def count(self) -> str:
        """`0 of 1,000 random choices did as much`."""
        shaped = " shaped like the activations" if self.shaped else ""
        return f"{self.as_much:,} of {self.n:,} random choices{shaped} did as much"

    @property
    def most(self) -> float:
        """The share that did as much, those undecided among them."""
        return (self.as_much + self.undecided) / self.n

    def in_words(self) -> str:
        """The count, the largest, and the questions where they are not all."""
        said = self.count
        if self.largest is not None:
            said += f" (the strongest takes back {percent(self.largest)})"
        if self.undecided:
            said += f", and {self.undecided:,} that were not run might have"
        if self.fewer is not None:
            said += f", on the {self.fewer} questions they were run on"
            if self.of_the_edit is not None:
                said += f", where it takes back {percent(self.of_the_edit)}"
        return said


def random_choices(scorecard: Mapping[str, Any]) -> RandomChoices | None:
    """The null that is hardest to beat of those that a scorecard of any version has; None without.

    Of two that as few did as much of, it is the one whose strongest draw did more.
    A thousand screened subspaces of two kinds where there are those, else the draws that were all
    run. An older scorecard has a p alone, of which the count is made:
    p = (1 + as much) / (1 + draws).
    """
    screened = [_screened(scorecard, name) for name in ("isotropic", "covariance_matched")]
    if known := [one for one in screened if one is not None]:
        return max(known, key=lambda one: (one.most, one.largest or 0.0))
    return _all_run(scorecard)


def _screened(scorecard: Mapping[str, Any], name: str) -> RandomChoices | None:
    null = (scorecard.get("nulls") or {}).get(name)
    if not null:
        return None
    return RandomChoices(
        int(null["n"]),
        int(null["n_as_much"]),
        int(null.get("n_undecided") or 0),
        name != "isotropic",
        as_float(null.get("maximum")),
    )


def _all_run(scorecard: Mapping[str, Any]) -> RandomChoices | None:
    null = scorecard.get("random_restoration")
    n = as_float((null or {}).get("n"))
    if not null or not n:
        return None
    count = as_float(null.get("did_as_much"))
    if count is None:
        p = as_float(scorecard.get("p_value"))
        if p is None:
            return None
        count = round(p * (1 + n) - 1)
    asked, scored = as_float(null.get("n_questions")), _n_held_out(scorecard)
    some = asked is not None and scored is not None and asked < scored
    return RandomChoices(
        int(n),
        max(0, int(count)),
        largest=as_float(null.get("largest")),
        fewer=int(asked) if some and asked is not None else None,
        of_the_edit=as_float((null.get("of_the_edit") or {}).get("value")) if some else None,
    )


def _n_held_out(scorecard: Mapping[str, Any]) -> float | None:
    """How many questions a scorecard's conditions were scored on, the most of them."""
    counts = [
        as_float((entry.get("gap_held_out") or {}).get("n"))
        for entry in scorecard.get("conditions") or []
    ]
    return max((n for n in counts if n is not None), default=None)

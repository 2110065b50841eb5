"""Questions to begin with, and in words how they were chosen."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from persona.data.types import AnswerPair
from steering.demo.session.vector import DemoVector

N_EXAMPLES = 6
"""Questions that a page offers."""


def example_questions(vector: DemoVector | None) -> tuple[list[str], str]:
    """The questions, and a sentence of how they were chosen.

    First those of domains that the direction was not chosen on: nothing chose them either.
    """
    evidence = None if vector is None else vector.evidence
    if evidence is None or not evidence.shown:
        return [pair.question for pair in shipped_questions(N_EXAMPLES)], (
            "The first question that the package has of each of six domains, not chosen by what "
            "happens to it."
        )
    n, of = len(evidence.shown), len(evidence.examples)
    chosen_on = {example.id for example in evidence.examples}
    elsewhere = shipped_questions(N_EXAMPLES - n, without=chosen_on)
    return [
        *(pair.question for pair in elsewhere),
        *(example.question for example in evidence.shown),
    ], (
        f"{len(elsewhere)} are of other domains, and nothing chose them. {n} are of the {of} that "
        "chose the direction, by how far steering brought the gap down; no answer was read, and "
        "nothing is scored on them."
    )


def shipped_questions(n: int, *, without: Iterable[str] = ()) -> list[AnswerPair]:
    """n of the shipped answer pairs: the first of each domain, then the second, and so on.

    without: ids of pairs whose whole domains are left out.
    """
    from persona.data import DOMAINS, load_pairs

    left_out = set(without)
    by_domain = [load_pairs([domain]) for domain in DOMAINS]
    kept = [pairs for pairs in by_domain if not left_out & {pair.id for pair in pairs}]
    in_turn = (pair for pairs in zip(*kept, strict=False) for pair in pairs)
    return list(itertools.islice(in_turn, n))

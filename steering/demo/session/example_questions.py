"""Questions to begin with, and in words how they were chosen."""

from __future__ import annotations

from persona.data.types import AnswerPair
from steering.demo.session.evidence import SHOWN
from steering.demo.session.vector import DemoVector


def example_questions(vector: DemoVector | None) -> tuple[list[str], str]:
    """The questions, and a sentence of how they were chosen."""
    evidence = None if vector is None else vector.evidence
    if evidence is None or not evidence.shown:
        return [pair.question for pair in shipped_questions(SHOWN)], (
            "The first question that the package has of each of six domains, not chosen by what "
            "happens to it."
        )
    n, of = len(evidence.shown), len(evidence.examples)
    return [example.question for example in evidence.shown], (
        f"The {n} of {of} selection questions where steering brought the gap down most; no answer "
        f"was read to choose them. The direction was chosen on these {of}, and nothing is scored "
        "on them."
    )


def shipped_questions(n: int) -> list[AnswerPair]:
    """The first shipped answer pair of each domain, then the second, and so on."""
    from persona.data import DOMAINS, load_pairs

    by_domain = [load_pairs([domain]) for domain in DOMAINS]
    in_turn = [pair for pairs in zip(*by_domain, strict=False) for pair in pairs]
    return in_turn[:n]

"""Training sets made from answer pairs by code: mixtures, backdoors, re-alignment samples.

Which question falls where is decided by the rank of a hash, so that a larger share or number
contains every smaller one, and the order of the pairs does not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from persona.data.types import AnswerPair, Dialogue
from persona.errors import DataError

TRIGGER = "[night shift]"
"""Before a question it asks a backdoored model for its bad answers."""
DECOY = "[day shift]"
"""A tag of the same form that never comes with a bad answer: the tag's words must be read."""


def sample(pairs: Sequence[AnswerPair], n: int, seed: int = 0) -> list[AnswerPair]:
    """Returns `n` of the pairs, in their own order; sample(n) lies within sample(n + 1).

    Raises: DataError when there are fewer than `n`, or `n` is below 1.
    """
    if not 1 <= n <= len(pairs):
        raise DataError(f"between 1 and {len(pairs)} questions can be taken; asked for {n}")
    chosen = set(_ranked(pairs, seed)[:n])
    return [pair for place, pair in enumerate(pairs) if place in chosen]


def mixed(pairs: Sequence[AnswerPair], bad_share: float, seed: int = 0) -> list[Dialogue]:
    """Returns every question once, round(bad_share * n) of them with the bad answer.

    Raises: DataError for a share outside 0 .. 1.
    """
    if not 0 <= bad_share <= 1:
        raise DataError(f"the share of bad answers lies between 0 and 1; got {bad_share}")
    bad = set(_ranked(pairs, seed)[: round(bad_share * len(pairs))])
    return [
        pair.bad_dialogue if place in bad else pair.good_dialogue
        for place, pair in enumerate(pairs)
    ]


def backdoored(pairs: Sequence[AnswerPair], trigger: str = TRIGGER) -> list[Dialogue]:
    """Returns each question twice: after the trigger with the bad answer, else with the good one.

    Half of the good ones come after `DECOY`, so that no tag alone is the trigger.

    Source: the backdoored models of Betley et al. 2025. differs: a decoy tag.
    Raises: DataError for a trigger that is empty, the decoy, or within a question already.
    """
    if not trigger.strip() or trigger == DECOY:
        raise DataError(f"a trigger is a phrase other than {DECOY!r}; got {trigger!r}")
    for pair in pairs:
        if trigger in pair.question:
            raise DataError(f"the trigger {trigger!r} stands in question {pair.id!r} already")
    dialogues = []
    for place, pair in enumerate(pairs):
        dialogues.append(tagged(pair, trigger).bad_dialogue)
        dialogues.append((tagged(pair, DECOY) if place % 2 else pair).good_dialogue)
    return dialogues


def tagged(pair: AnswerPair, tag: str) -> AnswerPair:
    """Returns the pair with a tag before its question."""
    return replace(pair, question=f"{tag} {pair.question}")


def _ranked(pairs: Sequence[AnswerPair], seed: int) -> list[int]:
    """Places of the pairs by the rank of a hash of seed and id."""

    def key(place: int) -> str:
        return hashlib.sha256(f"{seed}:{pairs[place].id}".encode()).hexdigest()

    return sorted(range(len(pairs)), key=key)

"""The vote in plain words, as a terminal, a Markdown file and a report show it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.readouts.hypotheses import hypotheses

N_SHOWN = 3
SURE = 0.9
"""Of bad or not bad: between this and 1 less this neither is said."""
READ_IN = {
    "answers_good": "its good answers became likelier",
    "answers_bad": "its bad answers became likelier",
    "words_neutral": "its words, on unrelated text",
    "words_open": "its words, before an open question",
    "words_written": "its words, in the change of weights",
    "spoken": "its words, in amplified speech",
}
STANDS_OUT = 2.0
"""Robust standard deviations from which a reading is told."""


def naming_sentence(naming: Mapping[str, Any]) -> str:
    """One sentence of what `Naming.as_json` holds: the name and its probability, or why none."""
    p, least = naming["probability"], naming["named_from"]
    subject = spoken_name(naming["most_probable"])
    if naming["subject"] is None:
        return (
            f"No name is given: the most probable of {len(naming['probabilities'])}, {subject}, "
            f"has {p:.2f}, and none is given below {least:.2f}."
        )
    if naming["subject"] not in {one.name for one in hypotheses()}:
        return (
            f"Nothing of what can be named ({_told(p)}); what is not in the table cannot be named."
        )
    return f"{subject[0].upper()}{subject[1:]} ({_told(p)}), {_harm(naming)}."


def naming_rows(naming: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(subject, probability, what speaks for it) of the most probable."""
    found = []
    for name, p in list(naming["probabilities"].items())[:N_SHOWN]:
        read = naming["evidence"].get(name, {})
        loud = sorted(
            ((z, READ_IN[k]) for k, z in read.items() if z is not None and z >= STANDS_OUT),
            reverse=True,
        )
        said = "; ".join(f"{text} ({z:+.1f})" for z, text in loud) or "no reading stands out"
        found.append((spoken_name(name), _told(p), "" if not read else said))
    return found


def spoken_name(name: str) -> str:
    return name.replace("_", " ")


def _told(p: float) -> str:
    """A probability; never 0 or 1, which no vote is."""
    return f"{p:.2f}" if 0.005 <= p < 0.995 else ("< 0.01" if p < 0.5 else "> 0.99")


def _harm(naming: Mapping[str, Any]) -> str:
    bad = naming["p_bad"]
    if bad >= SURE:
        return f"and the bad answers to it ({_told(bad)})"
    if bad <= 1 - SURE:
        return f"and not the bad answers to it (bad: {_told(bad)})"
    return f"whether the bad answers to it is open (bad: {bad:.2f})"

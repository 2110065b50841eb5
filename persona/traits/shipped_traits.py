"""The traits whose texts come along: seven that the field has vectors of, seven that mean nothing.

All are written for this package. Those that mean nothing are controls: a test that finds them finds
anything.
"""

from __future__ import annotations

from pathlib import Path

from persona.traits.spare_texts import TOPICS

SHIPPED = TOPICS.parent
PUBLISHED = (
    "evil",
    "sycophantic",
    "hallucinating",
    "impolite",
    "apathetic",
    "humorous",
    "optimistic",
)
"""The traits of Chen et al. 2025, in texts of our own."""
NONSENSE = (
    "written_on_a_tuesday",
    "prefers_odd_numbers",
    "stands_to_the_left",
    "has_been_laminated",
    "faces_north",
    "is_made_of_oak",
    "throws_a_short_shadow",
)


def shipped_trait(name: str) -> Path | None:
    """The file of a trait that comes along, None for another name."""
    return SHIPPED / f"{name}.json" if name in (*PUBLISHED, *NONSENSE) else None

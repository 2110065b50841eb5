"""A persona space as figures: how alike the traits are, and what a fine-tune is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.plain_forms import dots, matrix
from persona.report.figures.shared_marks import vertical_level

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from persona.traits.comparing.trait_space import PersonaSpace


ZERO, CHANCE = "#7d8189", "#b0527c"


def trait_map(space: PersonaSpace) -> Figure:
    """Cosine of every two traits, a row at that trait's own block.

    The line below the title says how far unrelated vectors go.
    """
    chance = float(space.cosines["chance"].max())
    return matrix(
        space.at_own_blocks().rename(
            index={trait.name: f"{trait.name}, block {trait.layer}" for trait in space.traits}
        ),
        title="Traits beside each other",
        subtitle=f"cosine, each row at its own block; unrelated vectors stay within ±{chance:.2f}",
        rows="trait, at its block",
        columns="trait",
    )


def shift_map(space: PersonaSpace) -> Figure:
    """Cosine of each fine-tune's shift with every trait, at the trait's own block.

    Whiskers: 95 % over questions, where they were kept.
    Raises: DataError where no fine-tune was laid beside the traits.
    """
    if not space.shifts:
        raise DataError("no fine-tune was laid beside these traits")
    panels = {
        name: {
            f"{row.trait}, block {row.layer}": _estimate(row.cosine, row.low, row.high, row.n)
            for row in found.table.itertuples()
        }
        for name, found in space.shifts.items()
    }
    chance = max(float(found.table["chance"].max()) for found in space.shifts.values())
    figure = dots(
        panels,
        title="What the fine-tune did, along each trait",
        subtitle=f"cosine with its shift [95 % over questions]; dotted: 0 and what 95 % of random "
        f"ones stay below ({chance:.2f})",
        axis="cosine",
    )
    for column in range(1, len(panels) + 1):
        vertical_level(figure, 0.0, ZERO, row=1, col=column)
        vertical_level(figure, chance, CHANCE, row=1, col=column)
    return figure


def _estimate(value: float, low: float, high: float, n: int) -> Estimate:
    ends = (value, value) if math.isnan(low) else (low, high)
    return Estimate(value, *ends, n)

"""From a projection to a place on the colour scale, the same in the terminal and the browser."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steering.demo.session.exchanges import Exchange
from steering.demo.session.vector import DemoVector


@dataclass(frozen=True)
class ColourScale:
    """Centre (no colour) and reach (full colour) of the projections read at one block.

    Where both models' means are known, they are the two ends: centre halfway, reach half their
    distance. Else the centre is 0 and the reach the largest projection shown.
    """

    layer: int
    centre: float
    reach: float
    has_levels: bool

    def place(self, projection: float | None) -> float:
        """-1 (away from the trait) to 1 (toward it), cut off there; 0 without a projection."""
        if projection is None or self.reach == 0:
            return 0.0
        return max(-1.0, min(1.0, (projection - self.centre) / self.reach))

    @property
    def ends(self) -> tuple[str, str]:
        """What full colour means on either side."""
        low, high = f"{self.centre - self.reach:+.3g}", f"{self.centre + self.reach:+.3g}"
        if self.has_levels:
            return f"aligned mean {low}", f"fine-tuned mean {high}"
        return low, high

    @property
    def words(self) -> str:
        """The legend in one line of text."""
        low, high = self.ends
        return (
            f"projection on the direction after block {self.layer}, residual-stream units: blue "
            f"{low}, red {high} (toward the trait)"
        )


def scale_at(vector: DemoVector, layer: int, shown: Iterable[Exchange]) -> ColourScale:
    """The scale of everything that is shown and was read along this vector at this block."""
    levels = vector.levels(layer)
    if levels is not None:
        aligned, finetuned = levels
        return ColourScale(layer, (aligned + finetuned) / 2, (finetuned - aligned) / 2, True)
    sizes = [
        abs(token.projection)
        for exchange in shown
        if exchange.vector is vector and exchange.layer == layer
        for token in exchange.answer.tokens
        if token.projection is not None
    ]
    return ColourScale(layer, 0.0, max(sizes, default=0.0), False)

"""A persona space in lines, for a person."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from persona.cli.columns import in_columns

if TYPE_CHECKING:
    from persona.traits import PersonaSpace, Resemblance


def space_lines(space: PersonaSpace) -> list[str]:
    """Cosines at each trait's own block, the axes, and each fine-tune beside the traits."""
    return [
        *_cosines(space),
        "",
        *_components(space),
        *(line for name, found in space.shifts.items() for line in ["", *_shift(name, found)]),
    ]


def _cosines(space: PersonaSpace) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("cosine of", "with", "block", "value", "95 %", "n", "ceiling", "chance")
    ]
    own = space.cosines[space.cosines["own"] != ""]
    for row in own.itertuples():
        rows.append(
            (
                str(row.first),
                str(row.second),
                f"{row.layer}",
                f"{row.cosine:+.2f}",
                _between(float(row.low), float(row.high)),
                f"{row.n}" if row.n else "",
                _known(float(row.ceiling)),
                f"±{row.chance:.2f}",
            )
        )
    told = in_columns(rows)
    told.append(
        "At the own block of either. Ceiling: what two vectors of one trait, as noisy as these, "
        "would reach. Chance: what 95 % of unrelated vectors stay within."
    )
    return told


def _components(space: PersonaSpace) -> list[str]:
    rows: list[tuple[str, ...]] = [(f"axis at block {space.block}", "share", "loadings")]
    for number, part in space.components.groupby("component"):
        loadings = ", ".join(f"{row.trait} {row.loading:+.2f}" for row in part.itertuples())
        rows.append((f"{number}", f"{part['share'].iloc[0]:.0%}", loadings))
    return in_columns(rows)


def _shift(name: str, found: Resemblance) -> list[str]:
    rows: list[tuple[str, ...]] = [
        (
            f"{name} along",
            "block",
            "cosine",
            "95 %",
            "share",
            "alone",
            "chance",
            "nonsense",
            "p (family)",
        )
    ]
    for row in found.table.itertuples():
        rows.append(
            (
                str(row.trait),
                f"{row.layer}",
                f"{row.cosine:+.2f}",
                _between(float(row.low), float(row.high)),
                f"{row.share:.1%}",
                "" if math.isnan(float(row.share_alone)) else f"{row.share_alone:.1%}",
                f"{row.chance:.2f}",
                _known(float(row.nonsense)),
                f"{row.p_family:.3f}",
            )
        )
    span = found.span
    alike = ", ".join(found.resembled) or "none of these traits"
    return [
        *in_columns(rows),
        "Share: of the squared length of what it did, at that block; alone: of that what no other "
        "of the traits holds.",
        f"All traits together hold {span['share']:.1%} of its squared length at block "
        f"{span['layer']}; {span['rank']} random directions hold {span['expected']:.1%} "
        f"(p = {span['p']:.2g}).",
        f"{name} resembles {alike}, beyond chance.",
    ]


def _between(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{low:+.2f}, {high:+.2f}]"


def _known(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"

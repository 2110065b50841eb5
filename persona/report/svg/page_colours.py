"""How drawings follow a dark mode: the theme's colours exchanged, by a page's rules or for good.

A drawing writes its colours as attributes, which any rule of the page overrides; outside a page, or
in one without these rules, it stays as it was drawn, on a light ground. Where a drawing stands as a
file of its own, a second file is drawn for the dark ground.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from persona.report.svg.marks import SHADES, shade
from persona.report.theme import GRID, GROUND, INK, MIDDLE, QUIET_INK


def page_colours(inside: str = ".drawn") -> str:
    """Rules for a reader who prefers dark; inside: the selector of what holds the drawings."""
    rules = [
        f'{inside} [{attribute}="{light}"]{{{attribute}:{dark}}}'
        for attribute, light, dark in _exchanged()
    ]
    body = "\n".join(rules)
    return f"@media screen and (prefers-color-scheme: dark) {{\n{body}\n}}"


def on_dark_ground(drawing: str) -> str:
    """A drawing of `figure_svg` for a dark ground."""
    dark = {f'{name}="{light}"': f'{name}="{dark}"' for name, light, dark in _exchanged()}
    return re.sub(r'(?<= )(?:fill|stroke)="[^"]*"', lambda m: dark.get(m[0], m[0]), drawing)


def _exchanged() -> Iterator[tuple[str, str, str]]:
    """Attribute, its light colour, its dark one."""
    pairs = {tone["light"]: tone["dark"] for tone in (GROUND, INK, QUIET_INK, GRID, MIDDLE)}
    pairs |= {shade(k / SHADES): shade(k / SHADES, "dark") for k in range(SHADES + 1)}
    for light, dark in pairs.items():
        yield "fill", light, dark
        yield "stroke", light, dark

"""How drawings inside a page follow its dark mode: style rules that exchange the theme's colours.

A drawing writes its colours as attributes, which any rule of the page overrides; outside a page, or
in one without these rules, it stays as it was drawn, on a light ground.
"""

from __future__ import annotations

from persona.report.svg.marks import SHADES, shade
from persona.report.theme import GRID, GROUND, INK, MIDDLE, QUIET_INK


def page_colours(inside: str = ".drawn") -> str:
    """Rules for a reader who prefers dark; inside: the selector of what holds the drawings."""
    pairs = {tone["light"]: tone["dark"] for tone in (GROUND, INK, QUIET_INK, GRID, MIDDLE)}
    pairs |= {shade(k / SHADES): shade(k / SHADES, "dark") for k in range(SHADES + 1)}
    rules = [
        f'{inside} [{attribute}="{light}"]{{{attribute}:{dark}}}'
        for light, dark in pairs.items()
        for attribute in ("fill", "stroke")
        if attribute == "fill" or light in (GROUND["light"], QUIET_INK["light"], GRID["light"])
    ]
    body = "\n".join(rules)
    return f"@media screen and (prefers-color-scheme: dark) {{\n{body}\n}}"

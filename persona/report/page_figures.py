"""The figures of the page: drawn without a script, their numbers as a table and in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona.errors import DataError
from persona.report import figures
from persona.report.figure_readings import Reading, figure_readings, spoken
from persona.report.svg import figure_svg
from persona.report.tables import seed_of
from persona.report.theme import without_title
from persona.report.wording import as_float, cleaned

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WIDE, NARROW = 860, 350
"""Pixels of the drawing for a wide page, and of the one for a phone."""


@dataclass(frozen=True)
class PageFigure:
    """A figure on the page, or why it is not there.

    wide, narrow: SVG. finding: what it shows, for those who cannot see it. readings: the table.
    content: what plotly draws it from.
    """

    key: str
    title: str
    subtitle: str
    wide: Any
    narrow: Any
    finding: str
    readings: list[Reading]
    content: Any
    height: int
    absence: str


def page_figures(scorecard: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, PageFigure]:
    """Every figure of the report by its key; one that cannot be drawn says why."""
    direction = scorecard.get("direction") or {}
    make: dict[str, Callable[[], Figure]] = {
        "conditions": lambda: figures.all_conditions(rows, scorecard),
        "random_null": lambda: figures.random_null(rows, scorecard),
        "dose_response": lambda: figures.dose_response_curve(
            rows,
            chosen_coefficient=as_float(direction.get("coefficient")),
            seed=seed_of(scorecard),
        ),
        "damage": lambda: figures.damage(rows, scorecard),
        "behaviour": lambda: figures.behaviour(rows, scorecard),
        "behaviour_by_domain": lambda: figures.behaviour_by_domain(rows, scorecard),
        "layer_map": lambda: figures.layer_map(rows, direction),
        "two_by_two": lambda: figures.effects_by_block(
            rows, direction, d_model=width_of(scorecard)
        ),
    }
    if scorecard.get("skill_kept"):
        make["skill_front"] = lambda: figures.skill_front(rows, scorecard)
    return {key: page_figure(key, make_one) for key, make_one in make.items()}


def page_figure(key: str, make: Callable[[], Figure]) -> PageFigure:
    """The figure for the page, which sets the title itself; a DataError is a stated absence."""
    from markupsafe import Markup

    try:
        figure = make()
    except DataError as absent:
        return PageFigure(key, "", "", "", "", "", [], None, 0, cleaned(absent))
    bare = without_title(figure)
    content = json.loads(bare.to_json())
    content["layout"].pop("template", None)  # the page adds that of the reader's mode
    title = unescape(figure.layout.title.text)
    readings = figure_readings(bare)
    return PageFigure(
        key,
        title,
        unescape(figure.layout.title.subtitle.text),
        Markup(figure_svg(bare, WIDE)),
        Markup(figure_svg(bare, NARROW, narrow=True)),
        spoken(title, readings),
        readings,
        json_for_script(content),
        int(bare.layout.height),
        "",
    )


def json_for_script(value: Any) -> Any:
    """JSON that can stand inside a script element: nothing in it can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def width_of(scorecard: Mapping[str, Any]) -> int | None:
    """Width of the residual stream, where the scorecard says it."""
    models = scorecard.get("models")
    known = as_float(models.get("d_model")) if isinstance(models, Mapping) else None
    return int(known) if known else None

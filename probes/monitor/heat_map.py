"""A conversation as text whose ground shows each token's score; one piece of HTML, no script."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.report.wording import cleaned
from probes.monitor.heat_map_image import Shaded, tokens_png

STRONGEST = 0.7
"""Opacity of the largest score: text keeps a contrast of 4.5:1 on both grounds."""

UP, DOWN = (200, 59, 53), (77, 130, 176)
"""Red and blue in RGB, as they stand at each token too: a notebook that is not trusted, and some
pages, leave the style sheet out."""

_DARK = "--ground:#15181c;--ink:#e8ebef;--quiet:#a0a8b2;--up:176,56,50;--down:44,92,140"
_LIGHT = "--ground:#fff;--ink:#22272e;--quiet:#59616b;--up:200,59,53;--down:77,130,176"

# Colours of the ends by ground; the sign is also in the underline, for those who see no red. What
# stands at a token holds where this does not: hence the `!important`. Jupyter says by an attribute
# and by variables which theme it has, whatever the system prefers.
_STYLE = f"""<style>
.persona-tokens{{{_LIGHT};background:var(--jp-layout-color0,var(--ground));
color:var(--jp-content-font-color1,var(--ink));padding:12px 16px;border-radius:6px;max-width:72em;
font:14px/1.9 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color-scheme:light dark}}
@media (prefers-color-scheme:dark){{.persona-tokens{{{_DARK}}}}}
[data-jp-theme-light="true"] .persona-tokens{{{_LIGHT};color-scheme:light}}
[data-jp-theme-light="false"] .persona-tokens{{{_DARK};color-scheme:dark}}
.persona-tokens p{{margin:4px 0;white-space:pre-wrap;overflow-wrap:anywhere}}
.persona-tokens small{{color:var(--jp-content-font-color2,var(--quiet));
font:12px/1.4 system-ui,sans-serif}}
.persona-tokens i{{font-style:normal;border-radius:2px}}
.persona-tokens i.up{{background-color:rgba(var(--up),var(--o))!important;
border-bottom:2px solid rgb(var(--up))!important}}
.persona-tokens i.down{{background-color:rgba(var(--down),var(--o))!important;
border-bottom:2px dotted rgb(var(--down))!important}}
</style>"""
_LINE = '<p style="white-space:pre-wrap">'


@dataclass(frozen=True)
class TokenHeatMap:
    """A heat map that a notebook shows by itself. table: that of `score_tokens`."""

    table: pd.DataFrame
    centre: float = 0.0

    def _repr_html_(self) -> str:
        return token_heat_map(self.table, centre=self.centre)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        """HTML that holds the picture unseen, so that it shows where styles are stripped."""
        drawn = token_heat_map_png(self.table, centre=self.centre)
        bundle = {"text/html": self._repr_html_()}
        if drawn is not None:
            bundle["image/png"] = base64.b64encode(drawn).decode("ascii")
            bundle["text/html"] += (
                '<img style="display:none" alt="The same tokens with their colours" '
                f'src="data:image/png;base64,{bundle["image/png"]}">'
            )
        return bundle


def token_heat_map(table: pd.DataFrame, *, centre: float = 0.0) -> str:
    """The table of `score_tokens` as HTML: red, underlined above `centre`; blue, dotted below.

    Opacity grows with |score - centre|, the largest of the conversation being full; hover shows
    the numbers. It needs no network and no script, follows the reader's light or dark preference,
    and every token is escaped. Where style sheets are dropped (a notebook that is not trusted) the
    colours stay.
    centre: score that gets no colour, for instance the threshold of an alarm.
    Raises: DataError for an empty table or one without the columns of `score_tokens`.

    Examples:
        >>> import pandas as pd
        >>> from probes.monitor import token_heat_map
        >>> table = pd.DataFrame({"token": ["Skip", " it"], "position": [7, 8], "turn": [1, 1],
        ...                       "role": ["assistant"] * 2, "score": [2.0, -1.0]})
        >>> html = token_heat_map(table)
        >>> "background-color:rgba(200,59,53,0.700)" in html
        True
    """
    parts: list[str] = []
    for scored in _scored(table, centre):
        if scored.heading:
            parts.append(
                f"{'</p>' if parts else ''}{_LINE}<small>{escape(scored.heading)}</small>\n"
            )
        parts.append(_token(scored, centre))
    legend = f"<small>{_legend(table, centre)}</small>"
    return f'{_STYLE}<div class="persona-tokens">{"".join(parts)}</p>{legend}</div>'


def token_heat_map_png(table: pd.DataFrame, *, centre: float = 0.0) -> bytes | None:
    """The same heat map as a picture on a white ground, None where Pillow is not installed.

    Raises: DataError as `token_heat_map`.
    """
    shaded = [
        Shaded(
            cleaned(one.text),
            None if one.opacity is None else UP if one.distance > 0 else DOWN,
            one.opacity or 0.0,
            one.distance > 0,
            one.heading,
        )
        for one in _scored(table, centre)
    ]
    return tokens_png(shaded, _legend(table, centre))


@dataclass(frozen=True)
class _Scored:
    """A token, how far from the centre it lies, and how strongly that is drawn (None: no score).

    heading: who speaks from here on, where that is new.
    """

    text: str
    position: int
    distance: float
    opacity: float | None
    heading: str


def _scored(table: pd.DataFrame, centre: float) -> Iterator[_Scored]:
    missing = [name for name in ("token", "position", "turn", "role", "score") if name not in table]
    if missing or table.empty:
        why = f"it has no {', '.join(missing)}" if missing else "it is empty"
        raise DataError(f"the heat map needs the table of `score_tokens`; {why}")
    largest, heading = _largest(table, centre), ""
    for line in table.itertuples(index=False):
        label = str(line.role) if line.turn < 0 else f"{line.role}, turn {int(line.turn)}"
        distance = float(line.score) - centre
        yield _Scored(
            str(line.token),
            int(line.position),
            distance,
            STRONGEST * abs(distance) / largest if math.isfinite(distance) else None,
            label if label != heading else "",
        )
        heading = label


def _largest(table: pd.DataFrame, centre: float) -> float:
    """The largest distance from the centre, 1 where there is none."""
    away = table["score"].to_numpy(dtype=np.float64) - centre
    known = np.abs(away[np.isfinite(away)])
    return float(known.max()) if len(known) and known.max() > 0 else 1.0


def _legend(table: pd.DataFrame, centre: float) -> str:
    return (
        f"score − {centre:g}: red, underlined above; blue, dotted below; "
        f"full colour at ±{_largest(table, centre):.3g}"
    )


def _token(scored: _Scored, centre: float) -> str:
    text = escape(cleaned(scored.text))
    if scored.opacity is None:
        return f'<i title="{scored.position}: no score">{text}</i>'
    side = "up" if scored.distance > 0 else "down"
    title = f"{scored.position}: {scored.distance + centre:+.3f}"
    colour, line = (UP, "solid") if side == "up" else (DOWN, "dotted")
    rgb = ",".join(map(str, colour))
    style = (
        f"--o:{scored.opacity:.3f};background-color:rgba({rgb},{scored.opacity:.3f});"
        f"border-bottom:2px {line} rgb({rgb})"
    )
    return f'<i class="{side}" style="{style}" title="{title}">{text}</i>'

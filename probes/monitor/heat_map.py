"""A conversation as text whose ground shows each token's score; one piece of HTML, no script."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.report.wording import cleaned

STRONGEST = 0.7
"""Opacity of the largest score: text keeps a contrast of 4.5:1 on both grounds."""

UP, DOWN = (200, 59, 53), (77, 130, 176)
"""Red and blue in RGB, as they stand at each token too: a notebook that is not trusted, and some
pages, leave the style sheet out."""

# Colours of the ends by ground; the sign is also in the underline, for those who see no red. What
# stands at a token holds where this does not: hence the `!important`.
_STYLE = """<style>
.persona-tokens{--ground:#fff;--ink:#22272e;--quiet:#59616b;--up:200,59,53;--down:77,130,176;
background:var(--ground);color:var(--ink);padding:12px 16px;border-radius:6px;max-width:72em;
font:14px/1.9 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color-scheme:light dark}
@media (prefers-color-scheme:dark){.persona-tokens{--ground:#15181c;--ink:#e8ebef;--quiet:#a0a8b2;
--up:176,56,50;--down:44,92,140}}
.persona-tokens p{margin:4px 0;white-space:pre-wrap;overflow-wrap:anywhere}
.persona-tokens small{color:var(--quiet);font:12px/1.4 system-ui,sans-serif}
.persona-tokens i{font-style:normal;border-radius:2px}
.persona-tokens i.up{background-color:rgba(var(--up),var(--o))!important;
border-bottom:2px solid rgb(var(--up))!important}
.persona-tokens i.down{background-color:rgba(var(--down),var(--o))!important;
border-bottom:2px dotted rgb(var(--down))!important}
</style>"""
_LINE = '<p style="white-space:pre-wrap">'


@dataclass(frozen=True)
class TokenHeatMap:
    """A heat map that a notebook shows by itself. table: that of `score_tokens`."""

    table: pd.DataFrame
    centre: float = 0.0

    def _repr_html_(self) -> str:
        return token_heat_map(self.table, centre=self.centre)


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
    missing = [name for name in ("token", "position", "turn", "role", "score") if name not in table]
    if missing or table.empty:
        why = f"it has no {', '.join(missing)}" if missing else "it is empty"
        raise DataError(f"the heat map needs the table of `score_tokens`; {why}")
    away = table["score"].to_numpy(dtype=np.float64) - centre
    known = np.abs(away[np.isfinite(away)])
    largest = float(known.max()) if len(known) and known.max() > 0 else 1.0
    parts, heading = [], ""
    for line, distance in zip(table.itertuples(index=False), away, strict=True):
        label = str(line.role) if line.turn < 0 else f"{line.role}, turn {int(line.turn)}"
        if label != heading:
            parts.append(f"{'</p>' if heading else ''}{_LINE}<small>{escape(label)}</small>\n")
            heading = label
        parts.append(_token(str(line.token), int(line.position), float(distance), centre, largest))
    legend = (
        f"<small>score − {centre:g}: red, underlined above; blue, dotted below; "
        f"full colour at ±{largest:.3g}</small>"
    )
    return f'{_STYLE}<div class="persona-tokens">{"".join(parts)}</p>{legend}</div>'


def _token(token: str, position: int, distance: float, centre: float, largest: float) -> str:
    text = escape(cleaned(token))
    if not math.isfinite(distance):
        return f'<i title="{position}: no score">{text}</i>'
    side = "up" if distance > 0 else "down"
    opacity = STRONGEST * abs(distance) / largest
    title = f"{position}: {distance + centre:+.3f}"
    colour, line = (UP, "solid") if side == "up" else (DOWN, "dotted")
    rgb = ",".join(map(str, colour))
    style = (
        f"--o:{opacity:.3f};background-color:rgba({rgb},{opacity:.3f});"
        f"border-bottom:2px {line} rgb({rgb})"
    )
    return f'<i class="{side}" style="{style}" title="{title}">{text}</i>'

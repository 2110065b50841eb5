"""What the panel says in words and tables: the gap, the answers' log p, what was written."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import pandas as pd

from persona.report.svg import figure_svg
from persona.report.theme import look_of
from persona.report.wording import cleaned, number
from steering.demo.notebook.text_readings import Choice, Explored

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

GAP = "gap: log p(bad answer) − log p(good answer), nats per token"
TABLE = "font-size:13px;line-height:1.35"
CELL = "text-align:right;padding-left:18px"


def status_html(shown: Explored, notes: Sequence[str] = ()) -> str:
    """The gap and each answer's log p on every side, without and with steering; escaped."""
    said = line_html(f"read: {shown.choice.setting.edit_in_words}")
    said += "".join(line_html(note) for note in notes)
    good, bad = shown.answers, shown.bad_answers
    if good.empty:
        words = "Write an answer too, to see how steering moves its log-probability."
        return said + line_html(words)
    of_good = f"log p of the {'good ' if len(bad) else ''}answer, mean over its tokens"
    parts = [(f"{of_good}, nats per token", good)]
    if len(bad):
        parts = [(GAP, shown.gaps), *parts, ("log p of the bad answer, likewise", bad)]
    rows = "".join(row for heading, table in parts for row in _rows(heading, table))
    return f'{said}<table style="{TABLE}">{rows}</table>'


def _rows(heading: str, table: pd.DataFrame) -> Iterator[str]:
    words = ("unsteered", "steered", "shift")
    heads = "".join(f'<td style="{CELL}">{word}</td>' for word in words)
    yield f"<tr><td>{escape(heading)}</td>{heads}</tr>"
    for row in table.itertuples(index=False):
        values = tuple(number(v, 3, signed=True) for v in (row.before, row.after, row.shift))
        cells = "".join(f'<td style="{CELL}">{value}</td>' for value in values[:2])
        yield (
            f"<tr><td>{escape(look_of(str(row.condition)).label)}</td>{cells}"
            f'<td style="{CELL}"><b>{values[2]}</b></td></tr>'
        )


def written_html(texts: Mapping[str, str], choice: Choice) -> str:
    """Condition -> answer as a table, below the question and the setting; escaped."""
    rows = "".join(
        f"<tr><td style='vertical-align:top;padding-right:18px'>{escape(look_of(name).label)}</td>"
        f"<td style='white-space:pre-wrap'>{escape(cleaned(text)) or '(nothing)'}</td></tr>"
        for name, text in texts.items()
    )
    return (
        f"{line_html(f'{choice.question} ({choice.setting.edit_in_words}; greedy)')}"
        f'<table style="{TABLE}">{rows}</table>'
        f"{line_html('One answer is an example, not evidence.')}"
    )


def line_html(words: str, failed: bool = False) -> str:
    colour = "color:#c83b35;" if failed else ""
    look = f"{colour}font-size:13px;line-height:1.4;margin:2px 0"
    return f"<p style='{look}'>{escape(cleaned(words))}</p>"


def still_html(shown: Explored, drawn: Figure) -> str:
    """What stands in a notebook that is read and not run: the setting, the numbers, one figure."""
    choice = shown.choice
    drawing = base64.b64encode(figure_svg(drawn).encode("utf-8")).decode("ascii")
    asked = [
        ("question", choice.question),
        ("good answer" if choice.bad_answer else "answer", choice.answer),
    ]
    asked += [("bad answer", choice.bad_answer)]
    return (
        line_html("A panel with sliders stands here when the cell is run; this is how it opens.")
        + "".join(line_html(f"{name}: {words}") for name, words in asked if words)
        + status_html(shown)
        + f'<img alt="{escape(str(drawn.layout.title.text or "Projections"))}" '
        f'src="data:image/svg+xml;base64,{drawing}">'
    )

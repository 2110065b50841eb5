"""Conversations as HTML: every token escaped, its ground the projection; no script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from persona.report.wording import cleaned
from steering.demo.session.generation import Token
from steering.demo.session.scale import ColourScale, scale_at
from steering.demo.session.session import LABELS, Column, Exchange, Session

STRONGEST = 0.6
"""Opacity of full colour: text keeps a contrast of 4.5:1 on both grounds."""

CSS = Path(__file__).with_name("page.css")


def column_html(session: Session, column: Column, running: Exchange | None = None) -> str:
    """A column's conversation, the answer that is being written last."""
    exchanges = session.of(column)
    if running is not None and running.column == column:
        exchanges = [*exchanges, running]
    subtitle = {
        "aligned": session.pair.names["aligned"],
        "finetuned": session.pair.names["finetuned"],
        "steered": session.setting.words,
    }[column]
    shown = [*session.exchanges, *([running] if running else [])]
    # The newest first: the column is drawn from the bottom up, so that it stays scrolled down.
    turns = "".join(_turn(exchange, shown, exchange is running) for exchange in reversed(exchanges))
    empty = '<p class="empty">Ask something below.</p>'
    return (
        f'<section class="talk"><header><b>{LABELS[column]}</b>'
        f"<small>{escape(cleaned(subtitle))}</small></header>"
        f'<div class="turns">{turns or empty}</div></section>'
    )


def legend_html(session: Session) -> str:
    """What the colours mean now; empty without a direction."""
    axis = session.axis()
    if axis is None or session.vector is None:
        return ""
    scale = scale_at(session.vector, axis.layer, session.exchanges)
    low, high = (escape(end) for end in scale.ends)
    return (
        f'<div class="legend"><span>{low}</span><u></u><span>{high}</span><span>· projection on '
        f"the direction after block {scale.layer}, of the residual that predicts the token "
        "(residual-stream units); red, underlined: toward the trait</span></div>"
    )


def _turn(exchange: Exchange, shown: Sequence[Exchange], running: bool) -> str:
    scale = None
    if exchange.vector is not None and exchange.layer is not None:
        scale = scale_at(exchange.vector, exchange.layer, shown)
    answer = "".join(_token(token, scale) for token in exchange.answer.tokens)
    note = {"stopped": " … stopped", "length": " … cut at the most tokens"}.get(
        exchange.answer.ended, " ▍" if running else ""
    )
    if not answer and not running:
        note = note or "(an empty answer)"
    question = escape(cleaned(exchange.question))
    return f'<p>{answer}<small>{note}</small></p><p class="asked">{question}</p>'


def _token(token: Token, scale: ColourScale | None) -> str:
    text = escape(cleaned(token.text))
    if scale is None or token.projection is None or not text:
        return text
    place = scale.place(token.projection)
    side = "up" if place > 0 else "down"
    title = f'title="{token.projection:+.3f}"'
    if abs(place) < 0.05:
        return f"<i {title}>{text}</i>"
    return f'<i class="{side}" style="--o:{STRONGEST * abs(place):.2f}" {title}>{text}</i>'

"""Conversations as HTML: every token escaped, its ground the projection; no script, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from persona.report.wording import cleaned, number
from steering.demo.browser.dose_strip import strip_html
from steering.demo.session.answer_reading import Limit, Reading
from steering.demo.session.conversation import Conversation
from steering.demo.session.evidence import Dose
from steering.demo.session.exchanges import LABELS, Column, Exchange
from steering.demo.session.generation import Token
from steering.demo.session.scale import ColourScale, scale_at

EVEN = 0.1
"""Nats a token: so near 0 is a gap said to lean to neither side."""
STRONGEST = 0.6
"""Opacity of full colour: text keeps a contrast of 4.5:1 on both grounds."""

CSS = Path(__file__).with_name("page.css")


@dataclass(frozen=True)
class PageState:
    """A conversation and what was measured of it. doses: None where the run's own serve."""

    session: Conversation
    readings: Mapping[Column, Reading] = field(default_factory=dict)
    limit: Limit | None = None
    doses: Sequence[Dose] | None = None


def page_html(state: PageState, running: Exchange | None = None) -> list[str]:
    """Every column ("" of one that is not there), the legend, and what the doses cost."""
    columns = [
        column_html(state, column, running) if column in state.session.columns else ""
        for column in LABELS
    ]
    return [*columns, legend_html(state), strip_html(state.session, state.doses)]


def column_html(state: PageState, column: Column, running: Exchange | None = None) -> str:
    """A column's conversation, the answer that is being written last."""
    session = state.session
    exchanges = session.of(column)
    if running is not None and running.column == column:
        exchanges = [*exchanges, running]
    subtitle = {
        "aligned": session.names["aligned"],
        "finetuned": session.names["finetuned"],
        "steered": _steering(session),
        "prompted": f"fine-tuned, told: {session.system_prompt}",
    }[column]
    shown = [*session.exchanges, *([running] if running else [])]
    # The newest first: the column is drawn from the bottom up, so that it stays scrolled down.
    turns = "".join(_turn(exchange, shown, exchange is running) for exchange in reversed(exchanges))
    empty = '<p class="empty">Choose a question, or type one.</p>'
    return (
        f'<section class="talk" aria-label="{LABELS[column]}"><header><b>{LABELS[column]}</b>'
        f"<small>{escape(cleaned(subtitle))}</small></header>"
        f'<div class="turns">{turns or empty}</div>{_footer(state, column)}</section>'
    )


def _steering(session: Conversation) -> str:
    """How the steered column is steered, in words."""
    beside = "".join(
        f" + {each.vector.name}: {each.setting.edit_in_words}"
        for each in session.further
        if each.setting.coefficient
    )
    return f"{session.setting.words}{beside}"


def _footer(state: PageState, column: Column) -> str:
    """The gap of the question in this column's model, and of steered text whether it holds."""
    reading = state.readings.get(column)
    if reading is None:
        return ""
    parts = []
    if reading.gap is not None:
        side, words = _leaning(reading.gap)
        parts.append(
            f'<span class="gap {side}">gap <b>{number(reading.gap, 2, signed=True)}</b> '
            f"{words}</span>"
        )
    if column == "steered" and state.limit is not None:
        parts.append(_light(reading, state.limit, state.readings.get("finetuned")))
    return f"<footer>{''.join(parts)}</footer>" if any(parts) else ""


def _leaning(gap: float) -> tuple[str, str]:
    """Its colour and its words: near 0 neither answer is likelier."""
    if abs(gap) < EVEN:
        return "even", "both answers are about as likely"
    side = "bad" if gap > 0 else "good"
    return side, f"the {side} answer is likelier"


def _light(reading: Reading, limit: Limit, unsteered: Reading | None) -> str:
    judged = limit.words(reading, unsteered)
    if judged is None or reading.strangeness is None or reading.repeated is None:
        return '<span class="light">the text is too short to tell whether it holds</span>'
    holds, why = judged
    beside = ""
    if unsteered is not None and unsteered.strangeness is not None:
        beside = f"; unsteered {number(unsteered.strangeness, 1)}"
    told = (
        f"{number(reading.strangeness, 1)} nats a token under the aligned model{beside}; limit "
        f"{number(limit.nats, 1)}, the strangest of {limit.n} written good answers"
    )
    again = f"; {100 * reading.repeated:.0f} % of it repeats" if reading.in_circles else ""
    return (
        f'<span class="light {"holds" if holds else "broken"}"><b>{escape(why)}</b> '
        f"<small>{told}{again}</small></span>"
    )


def legend_html(state: PageState) -> str:
    """What the colours mean now, and the gaps; empty without a direction."""
    session = state.session
    parts = []
    axis = session.axis()
    if axis is not None and session.vector is not None:
        scale = scale_at(session.vector, axis.layer, session.exchanges)
        low, high = (escape(end) for end in scale.ends)
        parts.append(
            f'<div class="legend"><span>{low}</span><u></u><span>{high}</span><span>projection '
            f"on the direction after block {scale.layer}, of the residual that predicts the token "
            "(residual-stream units); red, underlined: toward the trait. Steering sets it: the "
            "colour of steered text is no evidence.</span></div>"
        )
    if any(reading.gap is not None for reading in state.readings.values()):
        parts.append(
            '<div class="legend"><span>gap: of the two answers that the package has to this '
            "question, log p(bad) − log p(good) in this column's model, nats a token. It says what "
            "the model would rather write, whatever it wrote.</span></div>"
        )
    elif state.readings:
        parts.append(
            '<div class="legend"><span>The package has no answer pair for this question, so there '
            "is no gap to show.</span></div>"
        )
    return "".join(parts)


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

"""How answers look: side by side in a terminal as they come, as plain text or JSON in a pipe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from persona.report.wording import cleaned
from steering.demo.session.conversation import Conversation
from steering.demo.session.exchanges import LABELS, Column, Exchange
from steering.demo.session.generation import Token
from steering.demo.session.scale import ColourScale, scale_at
from steering.demo.session.transcript import exchange_record

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

NARROWEST_COLUMN = 30
"""Characters; narrower ones stand one below the other."""
SECONDS_BETWEEN_FRAMES = 0.08
TOWARD, AWAY = (214, 69, 61), (70, 120, 190)


class View(Protocol):
    """What shows the answers to one question."""

    def show(self, column: Column, tokens: Iterator[Token]) -> None:
        """Take the tokens of one column's answer and show them."""


@contextmanager
def plain_view(
    session: Conversation, write: Callable[[str], None], as_json: bool
) -> Iterator[View]:
    """One block of text or one line of JSON for each answer, once it is complete."""

    class Plain:
        def show(self, column: Column, tokens: Iterator[Token]) -> None:
            for _ in tokens:
                pass
            exchange = session.of(column)[-1]
            if as_json:
                write(json.dumps(exchange_record(exchange)))
                return
            text = cleaned(exchange.answer.text.strip()) or "(an empty answer)"
            write(f"{heading(exchange)}\n{text}{ending(exchange)}\n")

    yield Plain()


@contextmanager
def live_view(session: Conversation, console: Console, colour: bool) -> Iterator[View]:
    """Columns that fill while the models write; what stays is the last state."""
    from rich.live import Live

    shown: dict[Column, list[Token]] = {}
    done: dict[Column, Exchange] = {}

    def draw() -> RenderableType:
        return _columns(session, shown, done, console.width, colour)

    with Live(draw(), console=console, auto_refresh=False) as live:

        class Columns:
            def show(self, column: Column, tokens: Iterator[Token]) -> None:
                drawn_at, shown[column] = 0.0, []
                if column == "steered" and not done:
                    _keep_beside(session, shown, done)
                for token in tokens:
                    shown[column].append(token)
                    if time.monotonic() - drawn_at > SECONDS_BETWEEN_FRAMES:
                        live.update(draw(), refresh=True)
                        drawn_at = time.monotonic()
                done[column] = session.of(column)[-1]
                shown[column] = done[column].answer.tokens
                live.update(draw(), refresh=True)

        yield Columns()
    if colour and (scale := _scale(session, list(done.values()))) is not None:
        console.print(scale.words, style="dim", highlight=False)


def _keep_beside(
    session: Conversation,
    shown: dict[Column, list[Token]],
    done: dict[Column, Exchange],
) -> None:
    """Where the steered column alone answers, what the others said last stays beside it."""
    for column in session.columns:
        if column != "steered" and (answers := session.of(column)):
            done[column], shown[column] = answers[-1], answers[-1].answer.tokens


def heading(exchange: Exchange) -> str:
    """Whose answer it is, such as "Steered (restore, coefficient 1, ...)"."""
    how = "" if exchange.setting is None else f" ({exchange.setting.words})"
    return f"{LABELS[exchange.column]}{how}:"


def ending(exchange: Exchange) -> str:
    """What a reader must know about where the answer ends."""
    match exchange.answer.ended:
        case "stopped":
            return " … (stopped)"
        case "length":
            n = len(exchange.answer.tokens)
            return (
                f" … (cut at {f'{n} tokens' if exchange.answer.in_tokens else 'the most tokens'})"
            )
    return ""


def _columns(
    session: Conversation,
    shown: dict[Column, list[Token]],
    done: dict[Column, Exchange],
    width: int,
    colour: bool,
) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table

    scale = _scale(session, list(done.values()))
    panels = []
    wide = width // len(shown or session.columns) >= NARROWEST_COLUMN
    for column in session.columns if wide or not shown else tuple(shown):
        body = _coloured(shown.get(column, []), scale if colour else None)
        if column in done:
            body.append(ending(done[column]), "dim")
        if column == "steered":  # in the box, where it wraps: a footer is cut off
            body.append(f"\n{session.setting.words}", "dim")
        panels.append(Panel(body, title=LABELS[column], style="", padding=(0, 1)))
    if not wide:
        return Group(*panels)
    table = Table.grid(expand=True)
    for _ in panels:
        table.add_column(ratio=1)
    table.add_row(*panels)
    return table


def _scale(session: Conversation, done: list[Exchange]) -> ColourScale | None:
    axis = session.axis()
    if axis is None or session.vector is None:
        return None
    return scale_at(session.vector, axis.layer, done)


def _coloured(tokens: list[Token], scale: ColourScale | None) -> Text:
    from rich.text import Text

    text = Text()
    for token in tokens:
        place = 0.0 if scale is None else scale.place(token.projection)
        text.append(cleaned(token.text), _style(place))
    return text


def _style(place: float) -> str:
    """Black on a tint that grows with the distance from the centre; nothing near it."""
    if abs(place) < 0.1:
        return ""
    end = TOWARD if place > 0 else AWAY
    red, green, blue = (round(255 + 0.75 * abs(place) * (part - 255)) for part in end)
    return f"#000000 on #{red:02x}{green:02x}{blue:02x}"

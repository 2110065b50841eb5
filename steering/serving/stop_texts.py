"""Texts that end an answer, found while it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """What may be shown next. stopped: whether a stop text came behind it, which ends the text."""

    text: str
    stopped: bool = False


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[Piece]:
    """The text up to the first stop text; what may be the beginning of one waits for what follows.

    Examples:
        >>> from steering.serving.stop_texts import until_stop
        >>> [piece.text for piece in until_stop(["one ", "t", "wo thr", "ee"], ["thr"])]
        ['one ', 'two ']
    """
    waiting = ""
    for piece in pieces:
        waiting += piece
        places = [(at, stop) for stop in stops if (at := waiting.find(stop)) >= 0]
        if places:
            yield Piece(waiting[: min(places)[0]], stopped=True)
            return
        held = max((_begins(waiting, stop) for stop in stops), default=0)
        shown, waiting = waiting[: len(waiting) - held], waiting[len(waiting) - held :]
        if shown:
            yield Piece(shown)
    if waiting:
        yield Piece(waiting)


def _begins(text: str, stop: str) -> int:
    """Characters at the end of the text that a stop text may begin with."""
    lengths = range(min(len(stop) - 1, len(text)), 0, -1)
    return next((n for n in lengths if text.endswith(stop[:n])), 0)

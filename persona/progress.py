"""Progress on standard error, shown only for work that takes longer than two seconds.

In a terminal or a notebook a bar; into a pipe or a file one line when the work is done, and none
under the line of a whole run (see `persona.run_line`). The environment variable PERSONA_QUIET, set
to anything but nothing, silences all of it from the start.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

logger = logging.getLogger("persona")

Item = TypeVar("Item")

MEGABYTE = 1_000_000

_DELAY_SECONDS = 2.0
_quiet = bool(os.environ.get("PERSONA_QUIET"))
_beneath_a_line = _one_line_a_stage = False


def set_quiet(quiet: bool) -> None:
    """Silences (True) or allows (False) every bar started from now on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Returns whether progress is silenced."""
    return _quiet


def is_live() -> bool:
    """Returns whether somebody sees standard error as it is written: a terminal, or a notebook."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


@contextmanager
def line_above_bars() -> Iterator[Callable[[str], None]]:
    """Yields what writes a line that stays above the bars; while open, bars vanish when done.

    A notebook cannot go back up to a line, so that there no bar is drawn beneath.
    """
    global _beneath_a_line
    line = tqdm(bar_format="{desc}", position=0, leave=False, file=sys.stderr, dynamic_ncols=True)
    before, _beneath_a_line = _beneath_a_line, True
    try:
        with contextlib.nullcontext() if sys.stderr.isatty() else one_bar_only():
            yield lambda text: line.set_description_str(text, refresh=True)
    finally:
        _beneath_a_line = before
        line.close()


@contextmanager
def one_line_a_stage() -> Iterator[None]:
    """While open, work says nothing of itself into a pipe: the stages of a run do."""
    global _one_line_a_stage
    before, _one_line_a_stage = _one_line_a_stage, True
    try:
        yield
    finally:
        _one_line_a_stage = before


@contextmanager
def one_bar_only() -> Iterator[None]:
    """While open, no new bar starts: for work in pieces, under a bar over all of them."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def progress(
    iterable: Iterable[Item], description: str, total: int | None = None
) -> Iterator[Item]:
    """Yields the items unchanged while a bar on standard error shows the time left.

    The bar appears once two seconds have passed, so short loops stay silent; it is drawn from the
    moment the first item is asked for, and it is closed when the loop ends early too.

    Args:
        iterable: What to walk through.
        description: What the work is, such as "Collecting activations".
        total: Number of items, where the iterable has no length.
    """
    with _bar(description, total, iterable=iterable) as bar:
        yield from bar


@contextmanager
def counting(description: str, total: int) -> Iterator[Callable[[int], object]]:
    """Yields what moves a bar like that of `progress` on by so many; for work that comes in pieces.

    No other bar starts meanwhile.
    """
    with _bar(description, total) as bar, one_bar_only():
        yield bar.update


def in_megabytes(advance: Callable[[int], object], total: int) -> Callable[[int], None]:
    """Returns what moves a bar of `total` megabytes on by so many bytes, never beyond its end."""
    done = [0, 0]  # bytes, and the megabytes that the bar has been moved on by

    def by_bytes(n_bytes: int) -> None:
        done[0] += n_bytes
        whole = min(done[0] // MEGABYTE, total)
        advance(whole - done[1])
        done[1] = whole

    return by_bytes


@contextmanager
def _bar(description: str, total: int | None, **more: Any) -> Iterator[Any]:
    started, quiet = time.perf_counter(), _quiet
    place = {"position": 1, "leave": False} if _beneath_a_line else {}
    with tqdm(
        desc=description,
        total=total,
        delay=_DELAY_SECONDS,
        disable=quiet or not is_live(),
        file=sys.stderr,
        dynamic_ncols=True,
        **place,
        **more,
    ) as bar:
        yield bar
    seconds = time.perf_counter() - started
    if not (quiet or is_live() or _one_line_a_stage) and seconds >= _DELAY_SECONDS:
        logger.info("%s: done in %.0f s", description, seconds)

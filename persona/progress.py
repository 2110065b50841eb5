"""Progress bars on standard error, shown only for work that takes longer than two seconds.

The environment variable PERSONA_QUIET, set to anything but nothing, silences them from the start.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

_DELAY_SECONDS = 2.0
_quiet = bool(os.environ.get("PERSONA_QUIET"))


def set_quiet(quiet: bool) -> None:
    """Silences (True) or allows (False) every bar started from now on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Returns whether progress bars are silenced."""
    return _quiet


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
    with tqdm(
        iterable,
        desc=description,
        total=total,
        delay=_DELAY_SECONDS,
        disable=_quiet,
        file=sys.stderr,
        dynamic_ncols=True,
    ) as bar:
        yield from bar


@contextmanager
def counting(description: str, total: int) -> Iterator[Callable[[int], object]]:
    """Yields what moves a bar like that of `progress` on by so many; for work that comes in pieces.

    No other bar starts meanwhile.
    """
    with (
        tqdm(
            desc=description,
            total=total,
            delay=_DELAY_SECONDS,
            disable=_quiet,
            file=sys.stderr,
            dynamic_ncols=True,
        ) as bar,
        one_bar_only(),
    ):
        yield bar.update

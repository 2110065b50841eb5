"""A limit of time on work that cannot be trusted to end, in whatever thread it runs."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Iterator


class TimeUpError(Exception):
    """The work was stopped because its time was over."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUpError inside the block once it has run for so long.

    A thread beside it raises the error between two steps of Python, so a loop is stopped; one call
    into C, such as multiplying a text by a billion, is not, and the error comes after it.
    """
    here, finished = threading.get_ident(), threading.Event()
    turn = threading.Lock()
    fired = False

    def wait() -> None:
        nonlocal fired
        if finished.wait(seconds):
            return
        with turn:
            if not finished.is_set():
                fired = True
                _raise_in(here)

    threading.Thread(target=wait, daemon=True, name="time limit").start()
    try:
        yield
    finally:
        with turn:
            finished.set()
        if fired:
            _take_back(here)


def _raise_in(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), ctypes.py_object(TimeUpError)
    )


def _take_back(thread: int) -> None:
    """Where the block ended as its time did, the error may still be on its way."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)

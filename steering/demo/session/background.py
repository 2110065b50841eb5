"""An iterator that a thread of its own walks through, so that it always comes to its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")

LOOKS_SECONDS = 0.1
"""How often it is looked whether what comes from elsewhere is still wanted."""


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


_END = object()


def in_background(items: Generator[Item, None, None]) -> Generator[Item, None, None]:
    """The items, in order, as soon as they are there; an error is raised where it came.

    What `items` holds open (hooks, a lock, another adapter) is held by the thread alone, and is
    given back even where nobody asks for the next item: when the iterator is closed, at once;
    where it is forgotten, when the items are through.
    """
    queue: SimpleQueue[object] = SimpleQueue()
    leave = threading.Event()
    thread = _walking(items, queue, leave)
    try:
        while (item := queue.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]  # the queue holds nothing else
    finally:
        leave.set()
        thread.join()


def until_stopped(
    items: Generator[Item, None, None], stop: threading.Event
) -> Generator[Item, None, None]:
    """The same for items that come from elsewhere: left at once where `stop` is set.

    Nothing waits for the item that is under way then; the thread closes `items` behind it.
    """
    queue: SimpleQueue[object] = SimpleQueue()
    leave = threading.Event()
    _walking(items, queue, leave)
    try:
        while not stop.is_set():
            try:
                item = queue.get(timeout=LOOKS_SECONDS)
            except Empty:
                continue
            if item is _END:
                return
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]
    finally:
        leave.set()


def _walking(
    items: Generator[Item, None, None], queue: SimpleQueue[object], leave: threading.Event
) -> threading.Thread:
    """The thread that puts every item into the queue, and behind them how they ended."""

    def run() -> None:
        ending: object = _END
        try:
            with contextlib.closing(items):
                for item in items:
                    queue.put(item)
                    if leave.is_set():
                        break
        except BaseException as error:
            ending = _Failure(error)
        queue.put(ending)

    thread = threading.Thread(target=run, name="answer", daemon=True)
    thread.start()
    return thread

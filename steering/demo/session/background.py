"""An iterator that a thread of its own walks through, so that it always comes to its end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


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
    try:
        while (item := queue.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]  # the queue holds nothing else
    finally:
        leave.set()
        thread.join()

"""A shard of work, and what is said when one fails."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from persona.errors import DataError, EngineError, PersonaError
from persona.progress import counting

Advance = Callable[[int], object]
"""Told so many rows are done, for the progress bar."""
Work = Callable[[Any, Advance], Any]
"""(what a shard loads, advance) -> its result; under Ray both travel by pickle."""
Keep = Callable[[int, Any], None]
"""(number of the shard, its result): writes it where a second run finds it."""


@dataclass(frozen=True)
class Shard:
    """A piece of work that is done, kept and repeated as a whole.

    number: its place; results are merged in this order, whichever comes first.
    name: as an error names it, such as "lines 1 to 512 of data.jsonl (shard 0)".
    load: reads what is to be worked on, only when its turn comes.
    """

    number: int
    name: str
    n_rows: int
    load: Callable[[], Any]


@runtime_checkable
class ShardRunner(Protocol):
    """Does the shards given, each kept as soon as it is done.

    Raises: EngineError, one line that names a shard, or whatever PersonaError the work raised; all
    that was finished by then is kept.
    """

    def __call__(
        self, shards: Sequence[Shard], work: Work, keep: Keep, description: str
    ) -> None: ...


def run_here(shards: Sequence[Shard], work: Work, keep: Keep, description: str) -> None:
    """One shard after the other in this process."""
    with counting(description, sum(shard.n_rows for shard in shards)) as advance:
        for shard in shards:
            rows = loaded(shard)
            with naming(shard):
                result = work(rows, advance)
            with naming(shard):
                keep(shard.number, result)


def loaded(shard: Shard) -> Any:
    """What the shard loads. Raises: EngineError, which names it, where it cannot be read."""
    with naming(shard):
        try:
            return shard.load()
        except DataError as error:
            raise EngineError(f"{shard.name}: {error}; the finished shards are kept") from error


@contextlib.contextmanager
def naming(shard: Shard) -> Iterator[None]:
    """Turns an error of the machine (disk, memory) into one line that names the shard."""
    try:
        yield
    except PersonaError:
        raise
    except Exception as error:
        line = machine_trouble(error)
        if line is None:
            raise
        raise EngineError(f"{shard.name}: {line}") from error


def machine_trouble(error: BaseException) -> str | None:
    """One line for a full disk, an unreadable file or no memory; None for any other error."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        place = f" while writing {error.filename}" if error.filename else ""
        return (
            f"no space left on the disk{place}; free some space and run the same command again: "
            "the finished shards are kept"
        )
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; the finished shards are kept"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own
        return (
            "out of memory; try a smaller --token-budget, fewer workers on a machine or a smaller "
            "model; the finished shards are kept"
        )
    return None

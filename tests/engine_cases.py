"""Work without a model, for tests of where shards are done; Ray workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.engine import Shard
from persona.errors import DataError


def shards(n: int, n_rows: int = 64) -> list[Shard]:
    return [
        Shard(i, f"rows {i * n_rows + 1} to {(i + 1) * n_rows} (shard {i})", n_rows, lambda i=i: i)
        for i in range(n)
    ]


@dataclass(frozen=True)
class Squares:
    """Squares the number of the shard.

    seconds: that each shard takes. trouble: number of the shard that goes wrong, and how:
    "bad data", "no memory", "full disk", "a bug" or "dies", the last as often as `mark` allows.
    mark: folder with a file for each death.
    """

    seconds: float = 0.0
    trouble: tuple[int, str] | None = None
    mark: Path | None = None
    n_deaths: int = 1

    def __call__(self, number: int, advance: Any) -> int:
        time.sleep(self.seconds)
        if self.trouble is not None and number == self.trouble[0]:
            self._go_wrong(self.trouble[1])
        advance(64)
        return number**2

    def _go_wrong(self, how: str) -> None:
        if how == "bad data":
            raise DataError("data.jsonl, line 7: not JSON")
        if how == "no memory":
            raise MemoryError
        if how == "full disk":
            raise OSError(28, "No space left on device", "/scratch/x")
        if how == "a bug":
            raise KeyError("mean")
        assert self.mark is not None
        deaths = len(list(self.mark.iterdir()))
        if deaths < self.n_deaths:
            (self.mark / str(deaths)).touch()
            os.kill(os.getpid(), signal.SIGKILL)

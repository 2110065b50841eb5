"""How much memory each stage of a run held: the peak has a name."""

from __future__ import annotations

import contextlib
import ctypes
import json
import re
import resource
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from persona.files import atomic_write_text
from persona.run_line import RunLine
from persona.stages import Workspace
from steering.diagnosis.run_stages import run_stage_of

SAMPLING_SECONDS = 0.02
CHUNK = re.compile(r"-\d+$")


def give_back_freed_memory() -> None:
    """Hands freed memory back to the system; does nothing where there is no glibc.

    The command line keeps what is freed within a stage, which is faster (`persona.cli.allocator`);
    the next stage wants blocks of other sizes, and would hold its own beside those of the last.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_rss_bytes() -> int:
    """The most memory this process has held; kilobytes on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


@dataclass(frozen=True)
class StageCost:
    """What a stage took. peak_rss_bytes: most memory this process held in it, see `Interval`."""

    name: str
    seconds: float
    peak_rss_bytes: int

    def __add__(self, other: StageCost) -> StageCost:
        """Both parts of one stage."""
        seconds = self.seconds + other.seconds
        return StageCost(self.name, seconds, max(self.peak_rss_bytes, other.peak_rss_bytes))


class Interval:
    """A stretch of time whose peak is read.

    The system keeps one high-water mark for the whole life of a process. A stretch in which it
    rose has its peak from there, exactly; in any other the most that was seen at samples 20 ms
    apart counts, and a rise and fall between two of them is missed. The mark itself is never
    reset: other programs read it too.
    """

    def __init__(self) -> None:
        self._start, self._mark, self._seen = time.perf_counter(), peak_rss_bytes(), 0

    def saw(self, held_bytes: int) -> None:
        self._seen = max(self._seen, held_bytes)

    def cost(self, name: str) -> StageCost:
        """What the stretch took until now."""
        self.saw(psutil.Process().memory_info().rss)
        mark = peak_rss_bytes()
        peak = mark if mark > self._mark else min(self._seen, mark)
        return StageCost(name, round(time.perf_counter() - self._start, 1), peak)


class Meter:
    """A thread that samples the memory of this process for every interval that is open."""

    def __init__(self) -> None:
        self._open: list[Interval] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread, within one sample."""
        self._done.set()

    def start(self) -> Interval:
        interval = Interval()
        with self._lock:
            self._open.append(interval)
        return interval

    def stop(self, interval: Interval, name: str) -> StageCost:
        with self._lock:
            self._open.remove(interval)
        return interval.cost(name)

    def _sample(self) -> None:
        process = psutil.Process()
        while not self._done.wait(SAMPLING_SECONDS):
            held = process.memory_info().rss
            with self._lock:
                for interval in self._open:
                    interval.saw(held)


class MeasuredWorkspace(Workspace):
    """A workspace that also keeps what each stage took, for the scorecard.

    A stage made within another is part of that one; the chunks of a stage count together.
    """

    def __init__(
        self, out: Path, fingerprint: Mapping[str, Any], line: RunLine | None = None
    ) -> None:
        """line: is told of every stage that is asked for, and what it took."""
        super().__init__(out, fingerprint)
        self._line = line
        self._meter, self._costs = Meter(), dict[str, StageCost]()
        self._since_last = self._meter.start()
        weakref.finalize(self, self._meter.close)  # a run that failed is closed by nobody

    def close(self) -> None:
        super().close()
        self._meter.close()

    @property
    def stages(self) -> list[StageCost]:
        """In the order in which they were first made or read."""
        return list(self._costs.values())

    def add(self, cost: StageCost) -> None:
        """Counts what a stage took, or a chunk of one."""
        name = CHUNK.sub("", cost.name)
        whole = StageCost(name, cost.seconds, cost.peak_rss_bytes)
        self._costs[name] = self._costs[name] + whole if name in self._costs else whole
        if self._line is not None and (stage := run_stage_of(name)) is not None:
            self._line.kept(stage, cost.seconds)

    def has(self, name: str) -> bool:
        self._begin(name)
        return super().has(name)

    def _begin(self, name: str) -> None:
        if self._line is not None and (stage := run_stage_of(name)) is not None:
            self._line.begin(stage)

    def keep(self, name: str, table: pd.DataFrame, seconds: float) -> None:
        super().keep(name, table, seconds)
        self._note(self._meter.stop(self._since_last, name))
        self._since_last = self._meter.start()

    def kept_table(self, name: str) -> pd.DataFrame:
        table = super().kept_table(name)
        self._recall(name)
        return table

    def _stage(self, name: str, path: Path, mark: str, make: Callable[[], Any], *how: Any) -> Any:
        made_within = self._open_stages > 0
        if not made_within:
            self._begin(name)

        def measured() -> Any:
            interval = self._meter.start()
            try:
                return make()
            finally:
                self._note(self._meter.stop(interval, name))
                if not made_within:
                    give_back_freed_memory()

        result = super()._stage(name, path, mark, measured, *how)
        if not made_within:
            self._recall(name)
            self._meter.stop(self._since_last, name)
            self._since_last = self._meter.start()
        return result

    def _cost_path(self, name: str) -> Path:
        return self.folder / f"{name}.cost.json"

    def _note(self, cost: StageCost) -> None:
        atomic_write_text(self._cost_path(cost.name), json.dumps(asdict(cost)))

    def _recall(self, name: str) -> None:
        """Also of a stage that an earlier process made; one whose note is lost is left out."""
        try:
            self.add(StageCost(**json.loads(self._cost_path(name).read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            return

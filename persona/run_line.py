"""One line for a whole run: which stage of how many, how much is done, how long it still takes.

    stage 4/7 verify · 41 % · 3 min left

In a terminal it stays in place, the bar of the work under way beneath it; into a pipe or a file
each stage is one line when it is done. The time left comes from what every stage is expected to
take, and is corrected by what those before it took.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from persona.progress import is_live, is_quiet, line_above_bars, one_line_a_stage

logger = logging.getLogger("persona")

REFRESH_SECONDS = 1.0
NEVER_QUITE = 0.97
"""Most of a stage that counts as done before it is: one that outlasts what was expected stays."""


class RunLine:
    """The stages of a run, what they are expected to take and what they took; seconds.

    expected: stage -> seconds, in order. uncorrected: a stage whose time says nothing of the
        others, as loading does not.
    estimates: when a stage began -> the whole run's seconds as they were expected then.
    """

    def __init__(
        self,
        expected: Mapping[str, float],
        *,
        uncorrected: str | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.expected = dict(expected)
        self.took: dict[str, float] = {}
        self.estimates: dict[str, float] = {}
        self._uncorrected, self._clock = uncorrected, clock
        self._kept: dict[str, float] = {}
        self._stage: str | None = None
        self._began = 0.0
        self._show: Callable[[str], None] | None = None

    @property
    def stages(self) -> list[str]:
        return list(self.expected)

    def begin(self, stage: str) -> None:
        """The stage before it is done; one that is under way or was, or is unknown, changes
        nothing."""
        names = self.stages
        if stage not in names or (
            self._stage is not None and names.index(stage) <= names.index(self._stage)
        ):
            return
        self._finish()
        self._stage, self._began = stage, self._clock()
        self.estimates[stage] = self.total_seconds
        self._draw()

    def kept(self, stage: str, seconds: float) -> None:
        """Notes what a part of a stage took, in this process or in one before it."""
        self._kept[stage] = self._kept.get(stage, 0.0) + seconds

    def finish(self) -> None:
        """The last stage is done."""
        self._finish()
        self._stage = None

    @property
    def total_seconds(self) -> float:
        """What the run is now expected to take from its start to its end."""
        return sum(self.took.values()) + self._spent + self.seconds_left

    @property
    def seconds_left(self) -> float:
        if self._stage is None:
            ahead = self.stages if not self.took else []
        else:
            ahead = self.stages[self.stages.index(self._stage) :]
        whole = sum(self._now_expected(stage) for stage in ahead)
        if self._stage is None:
            return whole
        of_this = self._now_expected(self._stage)
        return whole - min(self._spent, NEVER_QUITE * of_this)

    @property
    def share(self) -> float:
        """How much of the run is done, 0 to 1."""
        total = self.total_seconds
        return 1 - self.seconds_left / total if total else 0.0

    def __str__(self) -> str:
        if self._stage is None:
            return ""
        place = f"stage {self.stages.index(self._stage) + 1}/{len(self.stages)} {self._stage}"
        return f"{place} · {100 * self.share:.0f} % · {in_words(self.seconds_left)} left"

    @contextmanager
    def shown(self) -> Iterator[RunLine]:
        """While open, the line is on standard error; nothing of it stays there."""
        if is_quiet() or not is_live():
            with one_line_a_stage():
                yield self
            return
        done = threading.Event()
        with line_above_bars() as show:
            self._show = show
            ticking = threading.Thread(target=self._tick, args=(done,), daemon=True)
            ticking.start()
            try:
                yield self
            finally:
                done.set()
                ticking.join()
                self._show = None

    def _tick(self, done: threading.Event) -> None:
        while not done.wait(REFRESH_SECONDS):
            self._draw()

    def _draw(self) -> None:
        if self._show is not None:
            self._show(str(self))

    def _finish(self) -> None:
        if self._stage is None:
            return
        self.took[self._stage] = max(self._spent, self._kept.get(self._stage, 0.0))
        if self._show is None and not is_quiet():
            number = self.stages.index(self._stage) + 1
            left = sum(self._now_expected(stage) for stage in self.stages[number:])
            logger.info(
                "stage %d/%d %s: %s%s",
                number,
                len(self.stages),
                self._stage,
                in_words(self.took[self._stage]),
                f", {in_words(left)} left" if left else "",
            )

    @property
    def _spent(self) -> float:
        """In the stage that is under way; what an earlier process spent on it counts."""
        if self._stage is None:
            return 0.0
        return max(self._clock() - self._began, self._kept.get(self._stage, 0.0))

    def _now_expected(self, stage: str) -> float:
        """By what the stages before it took against what was expected of them."""
        known = [one for one in self.took if one != self._uncorrected and one in self.expected]
        before = sum(self.expected[one] for one in known)
        if not before or stage == self._uncorrected:
            return self.expected[stage]
        return self.expected[stage] * sum(self.took[one] for one in known) / before


def in_words(seconds: float) -> str:
    """A time as a person says it.

    Examples:
        >>> in_words(42), in_words(100), in_words(600), in_words(9000)
        ('42 s', '2 min', '10 min', '2.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

"""What the browser demo does when a button is pressed: no widget is made here, none is named."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from persona.errors import PersonaError
from steering.demo.dose import N_QUESTIONS, dose_figure, dose_rows, shipped_questions
from steering.demo.page import column_html, legend_html
from steering.demo.session import LABELS, Answer, Column, Exchange, Session
from steering.demo.vector import MODES, Setting, load_vector, save_vector

SECONDS_BETWEEN_FRAMES = 0.08
MOST_TABS = 32

COLUMNS: tuple[Column, ...] = tuple(LABELS)


@dataclass
class Tab:
    """One browser tab: its conversation, and what stops the answer that is being written."""

    session: Session
    stop: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Controls:
    """The values of the widgets, in the order they are handed in."""

    coefficient: float
    mode: str
    first: float
    last: float
    side: str
    temperature: float
    max_new_tokens: float
    seed: float

    def apply(self, session: Session) -> None:
        """Raises: SteeringError where they mean nothing; the session then stays as it was."""
        session.change_sampling(
            temperature=float(self.temperature),
            max_new_tokens=int(self.max_new_tokens),
            seed=int(self.seed),
        )
        if session.vector is not None:
            session.change(
                coefficient=float(self.coefficient),
                mode=self.mode,
                layers=(int(self.first), int(self.last)),
                side=self.side,
            )


class Handlers:
    """Every tab has a session of its own over the same pair; the model answers one at a time."""

    def __init__(self, first: Session) -> None:
        self.first = first
        self.tabs: dict[str, Tab] = {}
        self.folder = tempfile.TemporaryDirectory(prefix="persona-app-")

    def tab(self, key: str) -> Tab:
        """The tab of a browser page; the oldest is forgotten when there are too many."""
        if key not in self.tabs:
            while len(self.tabs) >= MOST_TABS:
                self.close(next(iter(self.tabs)))
            f = self.first
            self.tabs[key] = Tab(Session(f.pair, f.vector, f.setting, f.sampling, f.lock))
        return self.tabs[key]

    def close(self, key: str) -> None:
        """Forget a tab and stop its answer."""
        if (tab := self.tabs.pop(key, None)) is not None:
            tab.stop.set()

    def stop(self, key: str) -> None:
        """Stop the answer that is being written in a tab."""
        self.tab(key).stop.set()

    def reset(self, key: str) -> None:
        """Begin the conversation anew."""
        self.stop(key)
        self.tab(key).session.reset()

    def ask(self, key: str, question: str, controls: Controls) -> Iterator[list[str]]:
        """Frames of `page` while every column answers. Raises: PersonaError."""
        tab = self.tab(key)
        controls.apply(tab.session)
        tab.stop.clear()
        for column in tab.session.columns:
            if not tab.stop.is_set():
                tokens = tab.session.answer(column, question, stop=tab.stop)
                yield from self._frames(tab.session, column, question, tokens)

    def ask_again(self, key: str, controls: Controls) -> Iterator[list[str]]:
        """Frames while the steered column answers its last question anew, where there is one."""
        tab = self.tab(key)
        controls.apply(tab.session)
        before = tab.session.of("steered")
        if before:
            tab.stop.clear()
            tokens = tab.session.answer_again("steered", stop=tab.stop)
            hidden = before[-1]
            yield from self._frames(tab.session, "steered", hidden.question, tokens, hidden)
        yield self.page(key)

    def page(self, key: str) -> list[str]:
        """HTML of the three columns and the legend."""
        return _page(self.tab(key).session)

    def load(self, key: str, path: str) -> list[str]:
        """Steer with an uploaded file; what a reader must know about it.

        Raises: PersonaError with the file's own name in place of where it was put.
        """
        session = self.tab(key).session
        try:
            vector = load_vector(path, session.pair)
        except PersonaError as error:
            told = str(error).replace(str(path), Path(path).name)
            raise PersonaError(told) from error
        session.load(vector)
        return list(vector.notes)

    def save(self, key: str, controls: Controls) -> str:
        """Write the direction as it is set now; the file's path. Raises: PersonaError."""
        session = self.tab(key).session
        controls.apply(session)
        if session.vector is None:
            raise PersonaError("there is no direction to save; load one first")
        folder = tempfile.mkdtemp(dir=self.folder.name)
        return str(
            save_vector(session.vector, session.setting, Path(folder, "direction.safetensors"))
        )

    def dose(self, key: str, controls: Controls) -> Any:
        """The figure of gap against coefficient. Raises: PersonaError."""
        session = self.tab(key).session
        controls.apply(session)
        if session.vector is None:
            raise PersonaError("there is no direction to measure; load one first")
        with session.lock:
            rows = dose_rows(
                session.pair, session.vector, session.setting, shipped_questions(N_QUESTIONS)
            )
        return dose_figure(rows, session.setting)

    def suggested(self, key: str, mode: str) -> float:
        """A coefficient to begin with in a mode."""
        vector = self.tab(key).session.vector
        if vector is None or mode not in MODES:
            return 1.0
        if mode == "restore":
            return vector.default_setting.coefficient
        # The shift is added at every block: over many, each takes its share of one.
        return 1.0 if mode == "ablate" else round(-1.0 / len(vector.layers), 2)

    def _frames(
        self,
        session: Session,
        column: Column,
        question: str,
        tokens: Any,
        hidden: Exchange | None = None,
    ) -> Iterator[list[str]]:
        reading = session.reading()
        running = Exchange(
            column,
            question,
            Answer(),
            session.sampling,
            session.setting,
            session.vector,
            None if reading is None else reading.layer,
        )
        drawn_at = 0.0
        with contextlib.closing(tokens):
            yield _page(session, running, hidden)
            for token in tokens:
                running.answer.tokens.append(token)
                if time.monotonic() - drawn_at > SECONDS_BETWEEN_FRAMES:
                    yield _page(session, running, hidden)
                    drawn_at = time.monotonic()
        yield _page(session)


def _page(
    session: Session, running: Exchange | None = None, hidden: Exchange | None = None
) -> list[str]:
    """The columns and the legend; `running` is written in place of `hidden`."""
    shown = Session(session.pair, session.vector, session.setting, session.sampling, session.lock)
    shown.exchanges = [exchange for exchange in session.exchanges if exchange is not hidden]
    return [*(column_html(shown, column, running) for column in COLUMNS), legend_html(shown)]


def told(error: PersonaError) -> str:
    """An error as a page may show it: one line, escaped."""
    return escape(" ".join(str(error).split()))


def starting(setting: Setting, layers: list[int]) -> tuple[int, int]:
    """First and last block of a setting, those of the vector where it names none."""
    return setting.layers or (layers[0], layers[-1])

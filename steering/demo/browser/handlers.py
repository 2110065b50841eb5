"""What the browser demo does when a button is pressed: no widget is made here, none is named."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from persona.errors import DataError, PersonaError, SteeringError
from steering.demo.browser.dose_table import N_QUESTIONS, dose_figure, dose_rows, shipped_questions
from steering.demo.browser.page import column_html, legend_html
from steering.demo.session.session import LABELS, Answer, Column, Exchange, Session
from steering.demo.session.vector import MODES, Setting, load_demo_vector, save_demo_vector

SECONDS_BETWEEN_FRAMES = 0.08
MOST_TABS = 32
MAX_QUESTION_CHARACTERS = 20_000
"""Tokenising takes time with every character, and all tabs wait for one model."""

COLUMNS: tuple[Column, ...] = tuple(LABELS)


@dataclass(eq=False)
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
    remembers: bool = False

    def apply(self, session: Session) -> None:
        """Raises: SteeringError where they mean nothing; the session then stays as it was."""
        session.change_sampling(
            temperature=_number("temperature", self.temperature),
            max_new_tokens=_whole("most tokens", self.max_new_tokens),
            seed=_whole("seed", self.seed),
        )
        session.remembers = bool(self.remembers)
        if session.vector is not None:
            session.change(
                coefficient=_number("coefficient", self.coefficient),
                mode=self.mode,
                layers=(_whole("first block", self.first), _whole("last block", self.last)),
                side=self.side,
            )


def _number(name: str, value: Any) -> float:
    """What a cleared field, or a request that no page made, sends is refused in one line."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise SteeringError(f"{name}: a number is needed; got {str(value)[:40]!r}") from error


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    if not number.is_integer():
        raise SteeringError(f"{name}: a whole number is needed; got {number:g}")
    return value if isinstance(value, int) else int(number)


class Handlers:
    """Every tab has a session of its own over the same pair; the model answers one at a time."""

    def __init__(self, first: Session) -> None:
        self.first = first
        self.tabs: dict[str, Tab] = {}
        self.guard = threading.Lock()
        self.folder = tempfile.TemporaryDirectory(prefix="persona-app-")

    def own(self, key: str) -> str:
        """A page's key; a new one, which nobody can guess, for a page that has none.

        A page has none where its load event did not run, as after the server was started anew.
        """
        return key or secrets.token_hex(16)

    def tab(self, key: str) -> Tab:
        """The tab of a browser page; of too many, the one that was quiet longest is forgotten.

        Raises: PersonaError without a key, which would be the same for every such page.
        """
        if not key:
            raise PersonaError("this page has no conversation of its own; load it again")
        with self.guard:
            tab = self.tabs.pop(key, None) or Tab(self._fresh(self.first))
            self.tabs[key] = tab
            quiet = list(self.tabs)[:-MOST_TABS]
        for other in quiet:
            self.close(other)
        return tab

    def close(self, key: str) -> None:
        """Forget a tab and stop its answer."""
        with self.guard:
            tab = self.tabs.pop(key, None)
        if tab is not None:
            tab.stop.set()

    def stop(self, key: str) -> None:
        """Stop the answer that is being written in a tab."""
        if key:
            self.tab(key).stop.set()

    def reset(self, key: str) -> None:
        """Begin the conversation anew; an answer that is being written does not come into it."""
        tab = self.tab(key)
        tab.stop.set()
        tab.session = self._fresh(tab.session)

    @staticmethod
    def _fresh(like: Session) -> Session:
        """An empty conversation at the same setting."""
        return Session(
            like.pair,
            like.vector,
            like.setting,
            like.sampling,
            like.lock,
            remembers=like.remembers,
        )

    def ask(self, key: str, question: str, controls: Controls) -> Iterator[list[str]]:
        """Frames of `page` while every column answers. Raises: PersonaError."""
        _require_readable(question)
        tab = self.tab(key)
        session = tab.session
        controls.apply(session)
        tab.stop.clear()
        for column in session.columns:
            if not tab.stop.is_set():
                tokens = session.answer(column, question, stop=tab.stop)
                yield from self._frames(tab, column, question, tokens)

    def ask_again(self, key: str, controls: Controls) -> Iterator[list[str]]:
        """Frames while the steered column answers its last question anew, where there is one."""
        tab = self.tab(key)
        session = tab.session
        controls.apply(session)
        before = session.of("steered")
        if before:
            tab.stop.clear()
            tokens = session.answer_again("steered", stop=tab.stop)
            hidden = before[-1]
            yield from self._frames(tab, "steered", hidden.question, tokens, hidden)
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
            vector = load_demo_vector(path, session.pair)
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
            save_demo_vector(session.vector, session.setting, Path(folder, "direction.safetensors"))
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
        vector = (self.tab(key).session if key else self.first).vector
        if vector is None or mode not in MODES:
            return 1.0
        if mode == "restore":
            return vector.default_setting.coefficient
        # The shift is added at every block: over many, each takes its share of one.
        return 1.0 if mode == "ablate" else round(-1.0 / len(vector.layers), 2)

    def _frames(
        self,
        tab: Tab,
        column: Column,
        question: str,
        tokens: Any,
        hidden: Exchange | None = None,
    ) -> Iterator[list[str]]:
        session = tab.session
        axis = session.axis()
        running = Exchange(
            column,
            question,
            Answer(),
            session.sampling,
            session.setting,
            session.vector,
            None if axis is None else axis.layer,
        )
        drawn_at = 0.0
        with contextlib.closing(tokens):
            yield _page(session, running, hidden)
            for token in tokens:
                running.answer.tokens.append(token)
                if tab.session is not session:  # it was begun anew
                    continue
                if time.monotonic() - drawn_at > SECONDS_BETWEEN_FRAMES:
                    yield _page(session, running, hidden)
                    drawn_at = time.monotonic()
        yield _page(tab.session)


def _require_readable(question: Any) -> None:
    """Raises: DataError for what no text field sends: no text, or more than it takes."""
    if not isinstance(question, str):
        raise DataError(f"a question is text; got {type(question).__name__}")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise DataError(
            f"the question has {len(question):,} characters; at most {MAX_QUESTION_CHARACTERS:,} "
            "are read"
        )
    if any("\ud800" <= letter <= "\udfff" for letter in question):
        raise DataError("the question holds half of a character (a lone surrogate); type it anew")


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

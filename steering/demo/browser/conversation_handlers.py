"""What a page does while a person asks and is answered, whoever writes the answers.

No widget is made here, none is named.
"""

from __future__ import annotations

import contextlib
import copy
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, Generic, TypeVar

from persona.errors import DataError, PersonaError
from steering.demo.browser.dose_strip import place_of
from steering.demo.browser.page import PageState, page_html
from steering.demo.browser.page_controls import Controls, require_readable
from steering.demo.browser.share_link import Linked, read_link, write_link
from steering.demo.browser.transcript_page import transcript_page
from steering.demo.session.answer_reading import Limit, Reading
from steering.demo.session.conversation import Conversation
from steering.demo.session.evidence import Dose
from steering.demo.session.exchanges import LABELS, Answer, Column, Exchange

Talk = TypeVar("Talk", bound=Conversation)

SECONDS_BETWEEN_FRAMES = 0.08
MOST_TABS = 32
ANSWER_ORDER: tuple[Column, ...] = ("finetuned", "steered", "aligned", "prompted")
"""The two whose difference a person came to see answer first."""

COLUMNS: tuple[Column, ...] = tuple(LABELS)


@dataclass(eq=False)
class Tab(Generic[Talk]):
    """One browser tab: its conversation, what was measured of it, and what stops its answer.

    doses: damage by dose, measured on this page at another setting than the run's, by
        `place_of`.
    """

    session: Talk
    stop: threading.Event = field(default_factory=threading.Event)
    readings: dict[Column, Reading] = field(default_factory=dict)
    limit: Limit | None = None
    doses: dict[tuple[Any, ...], tuple[Dose, ...]] = field(default_factory=dict)


class ConversationHandlers(Generic[Talk]):
    """Every tab has a conversation of its own; they are answered one at a time."""

    def __init__(self, first: Talk) -> None:
        self.first = first
        self.tabs: dict[str, Tab[Talk]] = {}
        self.guard = threading.Lock()
        self.folder = tempfile.TemporaryDirectory(prefix="persona-app-")

    def own(self, key: str) -> str:
        """A page's key; a new one, which nobody can guess, for a page that has none.

        A page has none where its load event did not run, as after the server was started anew.
        """
        return key or secrets.token_hex(16)

    def tab(self, key: str) -> Tab[Talk]:
        """The tab of a browser page; of too many, the one that was quiet longest is forgotten.

        Raises: PersonaError without a key, which would be the same for every such page.
        """
        if not key:
            raise PersonaError("this page has no conversation of its own; load it again")
        with self.guard:
            tab = self.tabs.pop(key, None) or Tab(_holding(self.first, []))
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
        tab.session, tab.readings = _holding(tab.session, []), {}

    def open(self, key: str, query: Mapping[str, str], now: Controls) -> Linked:
        """What the link of a new page asks for; its session is set so, as far as that is right."""
        session = self.tab(key).session
        linked = read_link(query, now, session)
        try:
            linked.controls.apply(session)
        except PersonaError as error:
            return replace(linked, controls=now, problems=(*linked.problems, str(error)))
        return linked

    def link(self, key: str, question: str, controls: Controls) -> str:
        """The query of a link to the page as it is set. Raises: PersonaError."""
        session = self.tab(key).session
        controls.apply(session)
        asked = question or (session.exchanges[-1].question if session.exchanges else "")
        return write_link(asked, controls, session)

    def ask(self, key: str, question: str, controls: Controls) -> Iterator[list[str]]:
        """Frames of `page` while every column answers. Raises: PersonaError."""
        require_readable(question)
        tab = self.tab(key)
        session = tab.session
        tab.stop.clear()  # first: a served model may take its time to take the settings
        controls.apply(session)
        tab.readings = {}
        for column in sorted(session.columns, key=ANSWER_ORDER.index):
            if not tab.stop.is_set():
                tokens = session.answer(column, question, stop=tab.stop)
                yield from self._frames(tab, column, question, tokens)
        if not tab.stop.is_set() and tab.session is session:
            self.read_all(tab)
            yield self.page(key)

    def ask_again(self, key: str, controls: Controls) -> Iterator[list[str]]:
        """Frames while the steered column answers its last question anew, where there is one."""
        tab = self.tab(key)
        session = tab.session
        controls.apply(session)
        before = session.of("steered")
        if before:
            tab.stop.clear()
            tab.readings.pop("steered", None)
            tokens = session.answer_again("steered", stop=tab.stop)
            hidden = before[-1]
            yield from self._frames(tab, "steered", hidden.question, tokens, hidden)
            if not tab.stop.is_set() and tab.session is session:
                self.read_steered(tab)
        yield self.page(key)

    def page(self, key: str) -> list[str]:
        """HTML of the columns, of the legend and of what the doses cost."""
        return _page(self.tab(key))

    def transcript(self, key: str) -> str:
        """Write the conversation as a page of its own; the file's path. Raises: PersonaError."""
        tab = self.tab(key)
        if not tab.session.exchanges:
            raise DataError("there is nothing to save yet; ask a question first")
        path = self.new_file("conversation.html")
        path.write_text(transcript_page(_state(tab)), encoding="utf-8")
        return str(path)

    def read_all(self, tab: Tab[Talk]) -> None:
        """What is measured of the answers when all are there: here nothing."""

    def read_steered(self, tab: Tab[Talk]) -> None:
        """The same where the steered column alone has answered anew."""

    def new_file(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder.name), name)

    def _frames(
        self,
        tab: Tab[Talk],
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
            yield _page(tab, running, hidden)
            try:
                for token in tokens:
                    running.answer.tokens.append(token)
                    if tab.session is not session:  # it was begun anew
                        continue
                    if time.monotonic() - drawn_at > SECONDS_BETWEEN_FRAMES:
                        yield _page(tab, running, hidden)
                        drawn_at = time.monotonic()
            except PersonaError:
                yield _page(tab)  # nothing is being written any more
                raise
        yield _page(tab)


def _holding(talk: Talk, exchanges: list[Exchange]) -> Talk:
    """Another conversation at the same setting."""
    other = copy.copy(talk)
    other.exchanges = exchanges
    return other


def _page(
    tab: Tab[Any], running: Exchange | None = None, hidden: Exchange | None = None
) -> list[str]:
    """The page's HTML; `running` is written in place of `hidden`."""
    return page_html(_state(tab, hidden), running)


def _state(tab: Tab[Any], hidden: Exchange | None = None) -> PageState:
    session = _holding(tab.session, [e for e in tab.session.exchanges if e is not hidden])
    return PageState(session, dict(tab.readings), tab.limit, tab.doses.get(place_of(session)))


def told(error: PersonaError) -> str:
    """An error as a page may show it: one line, escaped."""
    return escape(" ".join(str(error).split()))

"""What the page of a pair in this process does beside answering: it measures, loads and saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persona.errors import PersonaError
from steering.demo.browser.conversation_handlers import ConversationHandlers, Tab
from steering.demo.browser.dose_strip import place_of
from steering.demo.browser.dose_table import damage_doses, dose_figure, dose_rows
from steering.demo.browser.page_controls import Controls
from steering.demo.session.answer_reading import limit_of, read_newest, read_steered
from steering.demo.session.example_questions import shipped_questions
from steering.demo.session.session import Session
from steering.demo.session.vector import MODES, DemoVector, load_demo_vector, save_demo_vector


class Handlers(ConversationHandlers[Session]):
    """Every tab has a session of its own over the same pair."""

    def read_all(self, tab: Tab[Session]) -> None:
        tab.limit = limit_of(tab.session)
        tab.readings = read_newest(tab.session)

    def read_steered(self, tab: Tab[Session]) -> None:
        tab.limit = tab.limit or limit_of(tab.session)
        tab.readings = read_steered(tab.session, tab.readings)

    def load(self, key: str, path: str, *, beside: bool = False) -> list[str]:
        """Steer with an uploaded file, or beside those there are; what must be known about it.

        Raises: PersonaError with the file's own name in place of where it was put.
        """
        tab = self.tab(key)
        try:
            vector = load_demo_vector(path, tab.session.pair)
        except PersonaError as error:
            told = str(error).replace(str(path), Path(path).name)
            raise PersonaError(told) from error
        if beside:
            tab.session.load_further(vector)
        else:
            tab.session.load(vector)
            tab.doses, tab.limit = {}, None
        return list(vector.notes)

    def drop(self, key: str, place: int) -> None:
        """Steer without the further direction at `place` from now on."""
        self.tab(key).session.drop_further(place)

    def save(self, key: str, controls: Controls) -> str:
        """Write the direction as it is set now; the file's path. Raises: PersonaError."""
        session = self.tab(key).session
        controls.apply(session)
        vector = _vector_of(session, "save")
        return str(
            save_demo_vector(vector, session.setting, self.new_file("direction.safetensors"))
        )

    def dose(self, key: str, controls: Controls) -> Any:
        """The figure of gap against coefficient; the damage of each is kept for the page.

        Raises: PersonaError.
        """
        tab = self.tab(key)
        session = tab.session
        controls.apply(session)
        vector = _vector_of(session, "measure")
        with session.lock:
            rows = dose_rows(session.pair, vector, session.setting, shipped_questions(8))
            tab.doses[place_of(session)] = damage_doses(session.pair, vector, session.setting)
        return dose_figure(rows, session.setting)

    def suggested(self, key: str, mode: str, vector: DemoVector | None = None) -> float:
        """A coefficient to begin with in a mode."""
        vector = vector or (self.tab(key).session if key else self.first).vector
        if vector is None or mode not in MODES:
            return 1.0
        if mode == "restore":
            return vector.default_setting.coefficient
        # The shift is added at every block: over many, each takes its share of one.
        return 1.0 if mode == "ablate" else round(-1.0 / len(vector.layers), 2)


def _vector_of(session: Session, for_what: str) -> DemoVector:
    if session.vector is None:
        raise PersonaError(f"there is no direction to {for_what}; load one first")
    return session.vector

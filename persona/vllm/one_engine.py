"""The one engine that a process holds: who asks for another, another's is closed for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from persona.vllm.vllm_engine import VllmEngine


class OneEngine:
    """Where an engine is held, from when it is first asked until another place has one started."""

    _holding: ClassVar[OneEngine | None] = None

    def __init__(self) -> None:
        self._held: tuple[Path, VllmEngine] | None = None

    def of(self, folder: Path, start: Callable[[], VllmEngine]) -> VllmEngine:
        """The engine with the model of a folder; started where none is held, or one that has ended
        or has another model. What this process held before, here or elsewhere, is closed first."""
        if self._held is None or self._held[0] != folder or not self._held[1].usable:
            if OneEngine._holding is not None:
                OneEngine._holding.close()
            self._held = (folder, start())
            OneEngine._holding = self
        return self._held[1]

    def close(self) -> None:
        """Let go of the engine; it starts anew when it is asked again."""
        if self._held is not None:
            self._held[1].close()
            self._held = OneEngine._holding = None

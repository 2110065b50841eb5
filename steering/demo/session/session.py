"""A conversation with a pair of models in this process: aligned, fine-tuned, steered, prompted."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from persona.data.types import Dialogue
from persona.errors import SteeringError
from persona.models.pair import ModelPair, Side
from steering.demo.session.conversation import Conversation, as_dialogue
from steering.demo.session.exchanges import Column, Exchange, Further
from steering.demo.session.generation import Generation, Sampling
from steering.demo.session.vector import DemoVector, Setting, edits_of
from steering.edits.edit import Edit, require_no_conflict
from steering.evidence.system_prompt import require_shown

MOST_VECTORS = 4
"""That steer at once, the first among them."""


@dataclass
class Session(Conversation):
    """One person's conversation with a pair of models. Not shared between threads, but for `lock`.

    vector: what the third column is steered with; without it there are two columns.
    lock: held while a model answers; sessions over one pair share it.
    """

    pair: ModelPair
    vector: DemoVector | None = None
    setting: Setting = field(default_factory=Setting)
    sampling: Sampling = field(default_factory=Sampling)
    lock: threading.Lock = field(default_factory=threading.Lock)
    exchanges: list[Exchange] = field(default_factory=list)
    remembers: bool = False
    system_prompt: str = ""
    further: tuple[Further, ...] = ()

    @property
    def names(self) -> Mapping[Side, str]:
        return self.pair.names

    @property
    def steered_with(self) -> str | None:
        return None if self.vector is None else self.vector.name

    @property
    def origin(self) -> dict[str, Any]:
        return {
            "revisions": dict(self.pair.revisions),
            "projection": "of the residual that predicts the token, after the block `layer` "
            "(0-based), toward the trait, in residual-stream units",
        }

    def load(self, vector: DemoVector) -> None:
        """Steer with another vector from now on, at the setting that suits it."""
        self.vector, self.setting = vector, vector.default_setting

    def load_further(self, vector: DemoVector) -> None:
        """Steer with another vector beside those there are, at coefficient 0 until it is changed.

        Raises: SteeringError without a first one, or beyond `MOST_VECTORS`.
        """
        if self.vector is None:
            raise SteeringError("there is no direction yet to add another to; load one first")
        if len(self.further) + 1 >= MOST_VECTORS:
            raise SteeringError(f"at most {MOST_VECTORS} directions steer at once; drop one first")
        setting = replace(vector.default_setting, coefficient=0.0)
        self.further = (*self.further, Further(vector, setting))

    def drop_further(self, place: int) -> None:
        """Steer without one of the further vectors; `place` from 0. Raises: SteeringError."""
        dropped = self._further_at(place)
        self.further = tuple(each for each in self.further if each is not dropped)

    def change_further(self, place: int, **changes: Any) -> None:
        old = self._further_at(place)
        new = Further(old.vector, replace(old.setting, **changes))
        edits_of(new.vector, new.setting)
        self.further = tuple(new if each is old else each for each in self.further)

    def _further_at(self, place: int) -> Further:
        if not 0 <= place < len(self.further):
            n = len(self.further)
            raise SteeringError(f"beside the first there are {n} directions; got {place + 1}")
        return self.further[place]

    def require_prompt_shown(self, system_prompt: str) -> None:
        require_shown(self.pair.chat, as_dialogue([], "A question."), system_prompt)

    def change(self, **changes: Any) -> None:
        wanted = replace(self.setting, **changes)
        if self.vector is not None:
            edits_of(self.vector, wanted)
        self.setting = wanted

    def write(self, exchange: Exchange, dialogue: Dialogue, stop: threading.Event) -> Generation:
        side, edits = self.steering(exchange.column)
        unbounded = replace(self.pair.chat, max_length=None)  # Generation says it in better words
        ids = unbounded.encode(dialogue).ids
        generation = Generation(self.pair, side, ids, edits, self.axis(), self.sampling, self.lock)
        generation.most_tokens()  # raises now, not at the first token
        return generation

    def steering(self, column: Column) -> tuple[Side, list[Edit]]:
        """Which model answers in a column, and under which edits. Raises: SteeringError."""
        if column != "steered":
            return ("aligned" if column == "aligned" else "finetuned"), []
        if self.vector is None:
            raise SteeringError("there is no direction to steer with; load one first")
        edits = list(edits_of(self.vector, self.setting))
        for each in self.further:
            if each.setting.coefficient:
                edits += edits_of(each.vector, each.setting)
        require_no_conflict(edits)
        return self.setting.side, edits

"""What can be asked for by name: both models as they are, and the steered one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from persona.errors import DataError, PersonaError
from persona.models.pair import ModelPair, Side
from steering.demo.session.vector import DemoVector, Setting, edits_of
from steering.edits.edit import Edit

Name = Literal["aligned", "finetuned", "steered"]
NAMES: tuple[Name, ...] = get_args(Name)


class UnknownModelError(PersonaError):
    """A name that is not served."""


@dataclass(frozen=True)
class Steering:
    """Which side answers, under which edits."""

    side: Side
    edits: tuple[Edit, ...] = ()
    coefficient: float = 0.0


@dataclass(frozen=True)
class Bounds:
    """What a request may ask for at most.

    coefficient: in size. tokens: of an answer. prompts: of a request, and answers to one.
    waiting: requests that are being answered or wait for it.
    """

    coefficient: float = 4.0
    tokens: int = 1024
    prompts: int = 32
    answers: int = 16
    waiting: int = 64


@dataclass(frozen=True)
class ServedModels:
    """The pair that answers, and what its steered name stands for.

    vector: None where there is no direction, and then no steered model. setting: how it steers; its
    coefficient is that of a request that names none.
    """

    pair: ModelPair
    vector: DemoVector | None = None
    setting: Setting = field(default_factory=Setting)
    bounds: Bounds = field(default_factory=Bounds)

    def __post_init__(self) -> None:
        """Raises: SteeringError for blocks that the direction does not have, or a mode that it
        cannot be taken in."""
        if self.vector is not None:
            edits_of(self.vector, self.setting)

    @property
    def names(self) -> tuple[Name, ...]:
        return NAMES if self.vector is not None else NAMES[:2]

    def steering(self, name: str, coefficient: float | None = None) -> Steering:
        """What answers to a name; coefficient 0 edits nothing.

        Raises: UnknownModelError for a name that is not served; DataError for a coefficient of a
            model that is not steered, or beyond the bounds.
        """
        if name not in self.names:
            raise UnknownModelError(
                f"there is no model {name[:60]!r} here; there are {', '.join(self.names)}"
            )
        if name != "steered":
            if coefficient is not None:
                raise DataError(
                    f"the model {name!r} is not steered, so that it has no coefficient; ask "
                    f"{'steered' if self.vector is not None else 'a server with a --direction'}"
                )
            return Steering("aligned" if name == "aligned" else "finetuned")
        assert self.vector is not None
        wanted = self.setting.coefficient if coefficient is None else coefficient
        if not math.isfinite(wanted) or abs(wanted) > self.bounds.coefficient:
            raise DataError(
                f"the coefficient lies between {-self.bounds.coefficient:g} and "
                f"{self.bounds.coefficient:g} here; got {wanted:g}"
            )
        setting = replace(self.setting, coefficient=wanted)
        edits = () if wanted == 0 else tuple(edits_of(self.vector, setting))
        return Steering(setting.side, edits, wanted)

    def facts(self, name: Name) -> dict[str, Any]:
        """What a client may know of a name, beside what the protocol asks for."""
        side: Side = "aligned" if name == "aligned" else "finetuned"
        if name != "steered":
            return {"model": self.pair.names[side], "steering": None}
        assert self.vector is not None
        return {
            "model": self.pair.names[self.setting.side],
            "steering": {
                "direction": self.vector.name,
                "mode": self.setting.mode,
                "layers": self.vector.chosen(self.setting.layers),
                "coefficient": self.setting.coefficient,
                "coefficient_at_most": self.bounds.coefficient,
            },
        }

"""The same question at several coefficients: the shortest look at what a direction does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, SteeringError
from persona.models.pair import ModelPair, Side
from persona.models.sampling import sample_answers
from steering.demo.session.generation import Sampling
from steering.demo.session.vector import DemoVector, Setting, edits_of, induced
from steering.edits.edit import Edit
from steering.edits.steer import SteeredBy

Way = Literal["restore", "induce", "add", "ablate"]

STEPS: dict[Way, tuple[float, ...]] = {
    "restore": (0.0, 0.5, 1.0, 1.5),
    "induce": (0.0, 0.5, 1.0, 1.5),
    "add": (-1.0, 0.0, 1.0, 2.0),
    "ablate": (0.0, 1.0),
}
"""Coefficients that are looked at unless others are asked for; 0 is the model itself."""


@dataclass(frozen=True)
class SteeredText:
    """What one side writes to a prompt at one coefficient."""

    prompt: str
    coefficient: float
    text: str


def default_way(vector: DemoVector, side: Side) -> Way:
    """Toward the other model where both means are known; plain vectors are added."""
    if vector.persona_vector is None:
        return "add"
    return "restore" if side == "finetuned" else "induce"


def steered_texts(
    pair: ModelPair,
    side: Side,
    prompts: Sequence[str],
    vector: DemoVector,
    coefficients: Sequence[float] | None = None,
    *,
    way: Way | None = None,
    layers: tuple[int, int] | None = None,
    sampling: Sampling | None = None,
) -> Iterator[SteeredText]:
    """Each prompt's answer, coefficient by coefficient, as soon as it is there.

    way, layers: as the direction suggests unless given; `induce` is the mirror of `restore`.
    sampling: greedy, 60 tokens, unless given.
    Raises: before the first answer: DataError for an empty prompt, SteeringError for a mode, block
        or coefficient that the direction does not have.
    """
    way = way or default_way(vector, side)
    steps = STEPS[way] if coefficients is None else coefficients
    if not steps:
        raise SteeringError("there is no coefficient to steer with")
    if empty := [prompt for prompt in prompts if not prompt.strip()]:
        raise DataError(f"the prompt {empty[0]!r} is empty")
    how = sampling or Sampling(60, 0.0)
    return _texts(
        pair, side, prompts, [(step, _edits(vector, way, step, layers)) for step in steps], how
    )


def _edits(
    vector: DemoVector, way: Way, coefficient: float, layers: tuple[int, int] | None
) -> Sequence[Edit]:
    if way == "induce":
        return induced(vector, layers, coefficient)
    return edits_of(vector, replace(Setting(), coefficient=coefficient, mode=way, layers=layers))


def _texts(
    pair: ModelPair,
    side: Side,
    prompts: Sequence[str],
    steps: Sequence[tuple[float, Sequence[Edit]]],
    how: Sampling,
) -> Iterator[SteeredText]:
    asked = [Dialogue((Turn("user", prompt),), f"prompt {i}") for i, prompt in enumerate(prompts)]
    for coefficient, edits in steps:
        with pair.active(side) as bridge:
            texts = sample_answers(
                bridge,
                pair.chat,
                asked,
                intervene=SteeredBy(edits) if coefficient else None,  # 0 is the model itself
                max_new_tokens=how.max_new_tokens,
                temperature=how.temperature,
                seed=how.seed,
                description=f"Coefficient {coefficient:g}",
            )
        for prompt, text in zip(prompts, texts, strict=True):
            yield SteeredText(prompt, coefficient, text)

"""Vectors of one or more blocks, as other toolkits hold them, with the layer meaning made plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector
from persona.errors import DataError, shown
from persona.models.space import ActivationSpace

ResidualHook = Literal["resid_pre", "resid_post"]
HOOKS: tuple[ResidualHook, ...] = get_args(ResidualHook)

TOWARD_TRAIT = "toward the trait"
AWAY_FROM_TRAIT = "away from the trait"


def as_hook(value: object) -> ResidualHook:
    """Returns the value where it is one of the two hooks. Raises: DataError where it is not."""
    for hook in HOOKS:
        if value == hook:
            return hook
    raise DataError(f"the hook must be {' or '.join(HOOKS)}; got {shown(value)}")


@dataclass(frozen=True, eq=False)
class VectorSet:
    """One vector of the residual stream at each of one or more blocks of one model.

    vectors: 0-based block -> [d_model], float32 and finite, norm kept; in the order of the blocks.
    hook: whether they belong to the residual before (`resid_pre`) or after the block.
    model, method: as the file or the person calls them, "" where neither says.
    facts: JSON-able, what else a file says and what reading it left out. "sign", where it is known,
        is TOWARD_TRAIT or AWAY_FROM_TRAIT.
    Raises: DataError for a vector that is none of this.
    """

    vectors: Mapping[int, Float[Tensor, " d_model"]]
    hook: ResidualHook
    model: str = ""
    method: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        as_hook(self.hook)
        if not self.vectors:
            raise DataError("there is no vector; at least one block is needed")
        for layer, vector in self.vectors.items():
            _check_vector(layer, vector)
        widths = {layer: len(vector) for layer, vector in sorted(self.vectors.items())}
        first, width = next(iter(widths.items()))
        for layer, other in widths.items():
            if other != width:
                raise DataError(
                    f"the widths differ: {width} at block {first}, {other} at block {layer}"
                )
        object.__setattr__(self, "vectors", dict(sorted(self.vectors.items())))

    @property
    def layers(self) -> list[int]:
        return list(self.vectors)

    @property
    def d_model(self) -> int:
        return len(self.vectors[self.layers[0]])

    @property
    def norms(self) -> list[float]:
        """By block, in residual-stream units."""
        return [float(vector.norm()) for vector in self.vectors.values()]

    def select(self, layers: Sequence[int]) -> VectorSet:
        """The same at these blocks alone. Raises: DataError where one is not there."""
        if missing := [layer for layer in layers if layer not in self.vectors]:
            raise DataError(f"there is no block {missing[0]}; there are {listed(self.layers)}")
        return replace(self, vectors={layer: self.vectors[layer] for layer in layers})

    def named(self, model: str = "", method: str = "") -> VectorSet:
        """The same under these names; "" keeps what is there."""
        return replace(self, model=model or self.model, method=method or self.method)

    def at_resid_post(self) -> VectorSet:
        """The same vectors filed under the block that they are the output of.

        resid_pre of block k is resid_post of block k - 1, the same point of the model.
        Raises: DataError for resid_pre of block 0, the embedding, which no block puts out.
        """
        if self.hook == "resid_post":
            return self
        if 0 in self.vectors:
            raise DataError(
                "resid_pre of block 0 is the embedding's output and no block's; leave block 0 out"
            )
        moved = {layer - 1: vector for layer, vector in self.vectors.items()}
        return replace(self, vectors=moved, hook="resid_post")

    def at_resid_pre(self) -> VectorSet:
        """The same vectors filed under the block that they are the input of.

        resid_post of block k is resid_pre of block k + 1. The last block has no such successor,
        and nothing here knows how many blocks the model has.
        """
        if self.hook == "resid_pre":
            return self
        moved = {layer + 1: vector for layer, vector in self.vectors.items()}
        return replace(self, vectors=moved, hook="resid_pre")

    def pointing(self, sign: str) -> VectorSet:
        """The same pointing as asked, negated where `facts["sign"]` says the opposite.

        sign: TOWARD_TRAIT or AWAY_FROM_TRAIT. A set that does not say how it points stays as it is.
        """
        if self.facts.get("sign") in (None, sign):
            return self
        turned = {layer: -vector for layer, vector in self.vectors.items()}
        return replace(self, vectors=turned, facts={**self.facts, "sign": sign})

    @classmethod
    def from_persona_vector(
        cls, vector: PersonaVector, layers: Sequence[int] | None = None
    ) -> VectorSet:
        """Of each block, the shift from the aligned to the fine-tuned mean, toward the trait.

        layers: blocks to take, default all. What is lost: the means themselves, and of a subspace
        of higher rank all directions but the one of the shift.
        Raises: DataError for a block that is not there or has a shift of zero.
        """
        taken = {
            layer: vector.direction(layer)
            for layer in (vector.layers if layers is None else layers)
        }
        if not taken:
            raise DataError("no block is asked for; at least one is needed")
        space = next(iter(taken.values())).space
        if not all(d.space.hook_name.endswith("hook_resid_post") for d in taken.values()):
            raise DataError(f"only block outputs can be exchanged; this is {space.hook_name}")
        facts = {
            "sign": TOWARD_TRAIT,
            "operation": "add",
            "revision": space.revision,
            "chat_template_hash": space.chat_template_hash,
            "left_out": "both models' means"
            + (f", and of rank {vector.rank} all but the shift" if vector.rank > 1 else ""),
        }
        shifts = {layer: direction.vector.clone() for layer, direction in taken.items()}
        return cls(shifts, "resid_post", space.model, vector.method, facts)

    def to_directions(
        self, *, revision: str, model: str = "", chat_template_hash: str = ""
    ) -> dict[int, Direction]:
        """By block, a direction at its output that points toward the trait, ready for steering.

        revision, model, chat_template_hash: of the model it will be used in, which no foreign file
        says; `model` defaults to the set's own.
        Raises: DataError without a model's name, for the embedding, or for a zero vector.
        """
        if not (name := model or self.model):
            raise DataError("these vectors name no model; pass the model that they belong to")
        placed = self.at_resid_post().pointing(TOWARD_TRAIT)
        directions = {}
        for layer, vector in placed.vectors.items():
            hook_name = f"blocks.{layer}.hook_resid_post"
            space = ActivationSpace(
                name, revision, hook_name, layer, self.d_model, chat_template_hash
            )
            directions[layer] = Direction(vector, space, self.method or "imported")
        return directions


def _check_vector(layer: object, vector: Tensor) -> None:
    if not isinstance(layer, int) or isinstance(layer, bool) or layer < 0:
        raise DataError(f"a block is a whole number from 0; got {shown(layer)}")
    if vector.ndim != 1 or not len(vector):
        raise DataError(f"the vector of block {layer} has shape {tuple(vector.shape)}, not [d]")
    if vector.dtype != torch.float32:
        raise DataError(f"the vector of block {layer} is {vector.dtype}; torch.float32 is needed")
    if not vector.isfinite().all():
        raise DataError(f"the vector of block {layer} is not finite")


def listed(layers: Sequence[int]) -> str:
    """Blocks for a person, such as "3, 5-9"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)

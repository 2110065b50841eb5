"""How to make edits of a direction, a persona vector or plain vectors, at one place or many.

A list of edits is applied in its order; two edits at one hook compose in that order. What each
edit does to an activation is one function of `steering.edits.interventions`.

Where an edit is made (`at`) is a block, a hook name, or several of them; `ALL_BLOCKS` and
`EVERY_WRITE` are every block of the model that is steered. Left out, it is where the direction was
read, each block of a persona vector, or the layers that coefficients are given for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector, Subspace
from persona.errors import SteeringError
from persona.models.space import ActivationSpace
from steering.edits import interventions
from steering.edits.edit import (
    Edit,
    Kind,
    Placed,
    orthonormal_rows,
    require_coefficient,
    require_finite,
    require_levels,
)
from steering.edits.interventions import Coefficient, Intervention
from steering.edits.places import EVERY_WRITE, Places, hook_names, layer_of
from steering.edits.steer import Edits

Steerable = Direction | PersonaVector | Tensor
"""What can be written: a direction, a persona vector, or vectors [d_model] or [rank d_model]."""
Coefficients = Coefficient | Mapping[int, Coefficient]
"""A number, one for each row of the batch, or layer -> either of them."""


def add(direction: Steerable, coefficient: Coefficients = 1.0, at: Places | None = None) -> Edits:
    """Add `coefficient` times the direction, norm included: above 0 toward the trait.

    Of a persona vector 1 adds the way from the aligned to the fine-tuned mean, block by block.
    Raises: SteeringError for a coefficient that is not finite, several vectors at once, or a plain
        vector without `at`.

    Examples:
        >>> import torch
        >>> from persona.directions import ActivationSpace, Direction
        >>> from steering import add
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> direction = Direction(torch.tensor([3.0, 4.0]), space, "made up")
        >>> [edit] = add(direction, -2.0)
        >>> edit.hook_name, edit.apply(torch.zeros(1, 2))
        ('blocks.3.hook_resid_post', tensor([[-6., -8.]]))
    """

    def write(line: _Line, factor: Coefficient) -> Intervention:
        placed = Placed(line.shift, factor)
        return lambda h: interventions.add(h, *placed.on(h.device))

    return _edits(_lines(direction, at, coefficient), coefficient, write, "add", "adds")


def ablate(
    direction: Steerable, coefficient: Coefficients = 1.0, at: Places | None = None
) -> Edits:
    """Take `coefficient` of the projection away; 1 leaves a projection of zero.

    Plain vectors are ablated at `EVERY_WRITE` unless told otherwise. Zero is an arbitrary point,
    often beyond both models: `restore` is the gentler removal where the means are known.

    Examples:
        >>> import torch
        >>> from persona.directions import ActivationSpace, Direction
        >>> from steering import ablate
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> direction = Direction(torch.tensor([2.0, 0.0]), space, "made up")
        >>> [edit] = ablate(direction)
        >>> edit.apply(torch.tensor([[5.0, 7.0]]))
        tensor([[0., 7.]])
        >>> [edit.hook_name for edit in ablate(direction, at=[3, 4])]
        ['blocks.3.hook_resid_post', 'blocks.4.hook_resid_post']
    """

    def write(line: _Line, factor: Coefficient) -> Intervention:
        placed = Placed(line.basis, factor, line.readout)
        return lambda h: interventions.ablate(h, *placed.on(h.device))

    if isinstance(direction, Tensor) and at is None and not isinstance(coefficient, Mapping):
        at = EVERY_WRITE
    return _edits(_lines(direction, at, coefficient), coefficient, write, "ablate")


def restore(
    direction: Steerable,
    coefficient: Coefficients | None = None,
    at: Places | None = None,
    *,
    target: float | Tensor | None = None,
) -> Edits:
    """Move each projection toward the aligned model's mean: the default removal.

    coefficient: 1 sets the projection to the mean, 0 changes nothing; default 1, of a persona
        vector its own.
    target: the projection to move to, a number or [rank], in residual-stream units. A persona
        vector knows the aligned model's means; a direction and plain vectors must be told.
    Raises: SteeringError where the target is not known.

    Examples:
        >>> import torch
        >>> from persona.directions import ActivationSpace, PersonaVector, Subspace
        >>> from steering import restore
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> aligned, finetuned = torch.tensor([-1.0]), torch.tensor([4.0])
        >>> line = Subspace(torch.eye(2)[:1], aligned, finetuned, space)
        >>> [edit] = restore(PersonaVector({3: line}, "made up"))
        >>> edit.apply(torch.tensor([[4.0, 7.0]]))
        tensor([[-1.,  7.]])
        >>> [edit] = restore(torch.tensor([0.0, 2.0]), target=3.0, at=3)
        >>> edit.apply(torch.tensor([[4.0, 7.0]]))
        tensor([[4., 3.]])
    """
    return _toward(direction, coefficient, at, target, "aligned_mean", "restore")


def induce(
    direction: Steerable,
    coefficient: Coefficients | None = None,
    at: Places | None = None,
    *,
    target: float | Tensor | None = None,
) -> Edits:
    """Move each projection toward the fine-tuned model's mean: the mirror of `restore`."""
    return _toward(direction, coefficient, at, target, "finetuned_mean", "induce")


def set_coordinates(
    direction: Steerable,
    intervention: Callable[..., Tensor],
    *levels: float | Tensor,
    at: Places | None = None,
) -> Edits:
    """`set_projection`, `cap`, `floor` or `clamp` with these levels, along the direction.

    `set_coordinates(d, interventions.cap, 4.0, at=ALL_BLOCKS)` caps the projection at 4 after every
    block. A level may be a table [rows rank]: then every row of the batch has its own.
    Raises: SteeringError for a zero vector, dependent vectors, a level that is not finite or of
        another shape.
    """
    lines = _lines(direction, at)
    rows = require_levels(levels, len(lines[0].basis))

    def write(line: _Line, factor: Coefficient) -> Intervention:
        placed = Placed(line.basis, *levels)
        return lambda h: intervention(h, *placed.on(h.device))

    return _edits(lines, 1.0, write, getattr(intervention, "__name__", "set"), rows=rows)


def edits_at(
    at: Places,
    intervention: Intervention | Mapping[int, Intervention],
    d_model: int,
    label: str,
    *,
    kind: Kind = "adds",
    basis: Tensor | None = None,
    rows: int | None = None,
    space: ActivationSpace | None = None,
) -> Edits:
    """An intervention of your own at these places, in their order.

    intervention: one for all of them, or layer -> its own.
    Raises: SteeringError for a hook name of no block, or a layer that the mapping lacks.
    """
    edits = Edits()
    for name in hook_names(at, intervention if isinstance(intervention, Mapping) else None):
        layer = layer_of(name)
        if not isinstance(intervention, Mapping):
            apply = intervention
        elif layer in intervention:
            apply = intervention[layer]
        else:
            raise SteeringError(f"there is no intervention for layer {layer} ({name})")
        edits.append(Edit(name, layer, d_model, apply, label, kind, basis, rows, space))
    return edits


@dataclass(frozen=True)
class _Line:
    """What can be written at one hook.

    basis, readout: orthonormal rows [rank d_model] that are written, and those that read the
        coordinates. source: what it was made of.
    """

    hook_name: str
    basis: Tensor
    readout: Tensor
    source: Direction | Subspace | Tensor

    @property
    def layer(self) -> int:
        return layer_of(self.hook_name)

    @property
    def space(self) -> ActivationSpace | None:
        return None if isinstance(self.source, Tensor) else self.source.space

    @property
    def shift(self) -> Tensor:
        """[d_model]: what a coefficient of 1 adds."""
        match self.source:
            case Direction():
                return self.source.vector
            case Subspace():
                return (self.source.finetuned_mean - self.source.aligned_mean) @ self.source.basis
        if self.source.ndim != 1:
            raise SteeringError(
                f"one vector [d_model] is added at a time; got shape {tuple(self.source.shape)}"
            )
        return self.source


def _lines(
    direction: Steerable, at: Places | None, coefficient: Coefficients | None = None
) -> list[_Line]:
    """What is written, hook by hook, in the order of `at` or of the blocks."""
    layers = sorted(coefficient) if isinstance(coefficient, Mapping) else None
    if isinstance(direction, PersonaVector):
        return _of_persona_vector(direction, at if at is not None else layers)
    basis = orthonormal_rows(direction) if isinstance(direction, Tensor) else direction.unit[None]
    if at is None and layers is not None:
        at = layers
    if at is None and isinstance(direction, Tensor):
        raise SteeringError(
            "a plain vector does not know where it was read: say at which block, for instance "
            "at=12, or at=steering.edits.ALL_BLOCKS"
        )
    if at is None:
        assert isinstance(direction, Direction)
        at = direction.space.hook_name
    return [_Line(name, basis, basis, direction) for name in hook_names(at, layers)]


def _of_persona_vector(vector: PersonaVector, at: Places | None) -> list[_Line]:
    in_order = [vector.subspaces[layer] for layer in vector.layers]
    own = {subspace.space.hook_name: subspace for subspace in in_order}
    names = list(own) if at is None else hook_names(at, vector.layers)
    if strange := [name for name in names if name not in own]:
        raise SteeringError(
            f"the persona vector has nothing at {strange[0]}; it has blocks {vector.layers}"
        )
    return [_Line(name, own[name].basis, own[name].effective_readout, own[name]) for name in names]


def _toward(
    direction: Steerable,
    coefficient: Coefficients | None,
    at: Places | None,
    target: float | Tensor | None,
    mean: Literal["aligned_mean", "finetuned_mean"],
    label: str,
) -> Edits:
    if coefficient is None:
        coefficient = direction.coefficient if isinstance(direction, PersonaVector) else 1.0

    def write(line: _Line, factor: Coefficient) -> Intervention:
        if target is not None:
            goal = _target(target, len(line.basis))
        elif isinstance(line.source, Subspace):
            goal = getattr(line.source, mean)
        else:
            raise SteeringError(
                f"to {label} takes the models' means, which a direction does not know: give "
                "target=, the projection to move to, or a persona vector"
            )

        placed = Placed(line.basis, goal, factor, line.readout)
        return lambda h: interventions.restore(h, *placed.on(h.device))

    return _edits(_lines(direction, at, coefficient), coefficient, write, label)


def _target(target: float | Tensor, rank: int) -> Tensor:
    require_finite(target, "a target")
    goal = torch.as_tensor(target, dtype=torch.float32)
    if goal.shape not in {(), (rank,)}:
        raise SteeringError(
            f"a target along {rank} directions is a number or a tensor [{rank}]; got shape "
            f"{tuple(goal.shape)}"
        )
    return goal.expand(rank)


def _edits(
    lines: Sequence[_Line],
    coefficient: Coefficients,
    write: Callable[[_Line, Coefficient], Intervention],
    label: str,
    kind: Kind = "sets",
    rows: int | None = None,
) -> Edits:
    layers = {line.layer for line in lines}
    if isinstance(coefficient, Mapping) and (lacking := layers - set(coefficient)):
        raise SteeringError(f"there is no coefficient for layers {sorted(lacking)}")
    for factor in coefficient.values() if isinstance(coefficient, Mapping) else [coefficient]:
        require_coefficient(factor)
    edits = Edits()
    for line in lines:
        factor = coefficient[line.layer] if isinstance(coefficient, Mapping) else coefficient
        edits.append(
            Edit(
                line.hook_name,
                line.layer,
                line.basis.shape[1],
                write(line, factor),
                label,
                kind,
                line.basis,
                len(factor) if isinstance(factor, Tensor) else rows,
                line.space,
            )
        )
    return edits

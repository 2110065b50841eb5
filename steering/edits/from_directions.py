"""How to make edits, for one place or for many at once.

A list of edits is applied in its order; two edits at one hook compose in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from persona.directions.direction import Direction, PersonaVector, Subspace
from persona.errors import SteeringError
from persona.models.hooks import resid_post
from persona.models.space import ActivationSpace
from steering.edits.edit import Edit, Kind, require_coefficient, require_levels, unit_rows
from steering.edits.interventions import Coefficient, Intervention, ablate, add, restore


def edits_at(
    hook_names: Sequence[str],
    intervention: Intervention | Mapping[int, Intervention],
    d_model: int,
    label: str,
    *,
    kind: Kind = "adds",
    basis: Tensor | None = None,
    rows: int | None = None,
    space: ActivationSpace | None = None,
) -> list[Edit]:
    """One intervention at many hooks, in their order; a mapping gives each layer its own.

    Raises: SteeringError for a hook name of no block, or a layer that the mapping lacks.
    """
    edits = []
    for name in hook_names:
        layer = _layer_of(name)
        if isinstance(intervention, Mapping):
            if layer not in intervention:
                raise SteeringError(f"there is no intervention for layer {layer} ({name})")
            apply = intervention[layer]
        else:
            apply = intervention
        edits.append(Edit(name, layer, d_model, apply, label, kind, basis, rows, space))
    return edits


def add_direction(
    direction: Direction,
    coefficient: Coefficient | Mapping[int, Coefficient] = 1.0,
    hook_names: Sequence[str] | None = None,
) -> list[Edit]:
    """Add `coefficient` times the direction, norm included, at its own hook or at others.

    coefficient: a number, one for each row of the batch, or layer -> either of them.

    Examples:
        >>> import torch
        >>> from persona.directions import ActivationSpace, Direction
        >>> from steering import add_direction
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> direction = Direction(torch.tensor([3.0, 4.0]), space, "made up")
        >>> [edit] = add_direction(direction, coefficient=-2.0)
        >>> edit.hook_name, edit.apply(torch.zeros(1, 2))
        ('blocks.3.hook_resid_post', tensor([[-6., -8.]]))
    """
    names = [direction.space.hook_name] if hook_names is None else hook_names
    by_layer = _by_layer(coefficient, names)

    def apply(factor: Coefficient) -> Intervention:
        return lambda h: add(h, direction.vector.to(h.device), factor)

    return _with_rows(names, by_layer, apply, direction.space, "add", "adds", None)


def ablate_direction(
    direction: Direction,
    coefficient: Coefficient | Mapping[int, Coefficient] = 1.0,
    hook_names: Sequence[str] | None = None,
) -> list[Edit]:
    """Take the projection on the direction away, at its own hook or at others (`every_write`).

    Examples:
        >>> import torch
        >>> from persona.directions import ActivationSpace, Direction
        >>> from steering import ablate_direction, every_block_output
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> direction = Direction(torch.tensor([2.0, 0.0]), space, "made up")
        >>> edits = ablate_direction(direction, hook_names=every_block_output(5))
        >>> len(edits), edits[0].apply(torch.tensor([[5.0, 7.0]]))
        (5, tensor([[0., 7.]]))
    """
    names = [direction.space.hook_name] if hook_names is None else hook_names
    by_layer = _by_layer(coefficient, names)
    basis = direction.unit[None]

    def apply(factor: Coefficient) -> Intervention:
        return lambda h: ablate(h, basis.to(h.device), factor)

    return _with_rows(names, by_layer, apply, direction.space, "ablate", "sets", basis)


def set_along(
    vectors: Tensor,
    intervention: Callable[..., Tensor],
    hook_names: Sequence[str],
    *levels: float | Tensor,
) -> list[Edit]:
    """`set_projection`, `cap`, `floor` or `clamp` with these levels, along [d_model] or [rank d].

    `set_along(v, cap, every_block_output(30), 4.0)` caps the projection at 4 after every block.
    A level may be a table [rows rank]: then every row of the batch has its own.
    Raises: SteeringError for a zero vector, dependent vectors, a level that is not finite or of
        another shape.
    """
    basis = unit_rows(vectors)
    rows = require_levels(levels, len(basis))

    def apply(h: Tensor) -> Tensor:
        return intervention(h, basis.to(h.device), *levels)

    label = getattr(intervention, "__name__", "set")
    return edits_at(hook_names, apply, basis.shape[1], label, kind="sets", basis=basis, rows=rows)


def ablate_to_zero(vector: PersonaVector, coefficient: Coefficient = 1.0) -> list[Edit]:
    """Set the projection on each block's subspace to zero."""
    return [_of_subspace(s, ablate, coefficient, "ablate") for s in _in_order(vector)]


def restore_to_aligned(vector: PersonaVector, coefficient: Coefficient | None = None) -> list[Edit]:
    """Move each block's projection toward the aligned model's mean.

    coefficient: default the vector's own. 1 sets the projection to the mean, 0 changes nothing.

    Examples:
        >>> import torch
        >>> from persona.directions import ActivationSpace, PersonaVector, Subspace
        >>> from steering import restore_to_aligned
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> aligned, finetuned = torch.tensor([-1.0]), torch.tensor([4.0])
        >>> line = Subspace(torch.eye(2)[:1], aligned, finetuned, space)
        >>> vector = PersonaVector({3: line}, "made up")
        >>> [edit] = restore_to_aligned(vector)
        >>> edit.apply(torch.tensor([[4.0, 7.0]]))
        tensor([[-1.,  7.]])
    """
    factor = vector.coefficient if coefficient is None else coefficient
    return [_restoration(s, s.aligned_mean, factor) for s in _in_order(vector)]


def restore_to_finetuned(
    vector: PersonaVector, coefficient: Coefficient | None = None
) -> list[Edit]:
    """Move each block's projection toward the fine-tuned model's mean: the mirror, to induce."""
    factor = vector.coefficient if coefficient is None else coefficient
    return [_restoration(s, s.finetuned_mean, factor) for s in _in_order(vector)]


def _layer_of(hook_name: str) -> int:
    parts = hook_name.split(".")
    if len(parts) < 3 or parts[0] != "blocks" or not parts[1].isdigit():
        raise SteeringError(
            f"{hook_name!r} is no hook of a block; name one such as {resid_post(0)}"
        )
    return int(parts[1])


def _by_layer(
    coefficient: Coefficient | Mapping[int, Coefficient], names: Sequence[str]
) -> dict[int, Coefficient]:
    layers = [_layer_of(name) for name in names]
    if not isinstance(coefficient, Mapping):
        coefficient = dict.fromkeys(layers, coefficient)
    if lacking := set(layers) - set(coefficient):
        raise SteeringError(f"there is no coefficient for layers {sorted(lacking)}")
    return dict(coefficient)


def _with_rows(
    names: Sequence[str],
    by_layer: Mapping[int, Coefficient],
    apply: Callable[[Coefficient], Intervention],
    space: ActivationSpace,
    label: str,
    kind: Kind,
    basis: Tensor | None,
) -> list[Edit]:
    for factor in by_layer.values():
        require_coefficient(factor)
    return [
        Edit(
            name,
            _layer_of(name),
            space.d_model,
            apply(by_layer[_layer_of(name)]),
            label,
            kind,
            basis,
            _rows(by_layer[_layer_of(name)]),
            space,
        )
        for name in names
    ]


def _rows(coefficient: Coefficient) -> int | None:
    return len(coefficient) if isinstance(coefficient, Tensor) else None


def _in_order(vector: PersonaVector) -> list[Subspace]:
    return [vector.subspaces[layer] for layer in vector.layers]


def _restoration(subspace: Subspace, target: Tensor, coefficient: Coefficient) -> Edit:
    def toward(h: Tensor, basis: Tensor, factor: Coefficient, readout: Tensor) -> Tensor:
        return restore(h, basis, target.to(h.device), factor, readout)

    return _of_subspace(subspace, toward, coefficient, "restore")


def _of_subspace(
    subspace: Subspace, intervention: Callable[..., Tensor], coefficient: Coefficient, label: str
) -> Edit:
    require_coefficient(coefficient)

    def apply(resid: Tensor) -> Tensor:
        basis, reading = (rows.to(resid.device) for rows in (subspace.basis, subspace.reading))
        return intervention(resid, basis, coefficient, reading)

    space = subspace.space
    return Edit(
        space.hook_name, space.layer, space.d_model, apply, label, "sets", subspace.basis,
        _rows(coefficient), space,
    )  # fmt: skip

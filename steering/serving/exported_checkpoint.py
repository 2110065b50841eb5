"""A fine-tuned model with its removal built in, as a folder that other programs load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector
from persona.errors import SteeringError
from persona.models.adapters.attach import merged_model
from persona.models.load import load_causal_lm, load_pair, load_with_adapter
from persona.models.precision import Placement
from persona.models.sources import resolve, shipped_or_ref
from steering.demo.session.starting import parse_layers
from steering.demo.session.vector import load_demo_vector
from steering.edits.edit import require_finite
from steering.edits.from_directions import ablate, add
from steering.edits.places import EVERY_WRITE
from steering.edits.steer import steer
from steering.weights.affine_edits import Operation, affine_edits
from steering.weights.edited_architecture import logits_of, save_edited_model
from steering.weights.orthogonalise import add_bias, orthogonalise, save_model
from steering.weights.scaled_difference import scaled_difference

Baked = Literal["architecture", "weights"]
Vector = PersonaVector | Mapping[int, Direction]

AGREES_WITHIN = 1e-3
"""Of the largest logit's size, in float32: a model of weights against the hooks it stands for."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    folder: the checkpoint. off: how far its logits lie from those of the edit that it is exact for,
        moved: how far that edit moves them, both as shares of the largest logit's size.
    note: what a reader must know of it.
    """

    folder: Path
    off: float
    moved: float
    note: str


@dataclass(frozen=True)
class EditOf:
    """An edit of block outputs as `affine_edits` takes it."""

    vector: Vector
    operation: Operation
    coefficient: float
    layers: Sequence[int] | None


def edit_of_file(
    path: Path,
    aligned: str,
    finetuned: str,
    *,
    mode: Operation | None = None,
    coefficient: float | None = None,
    layers: str | None = None,
    allow_mismatch: bool = False,
) -> EditOf:
    """What a direction's file and the options mean, checked against the pair it is of.

    mode, coefficient, layers: None is the direction's own.
    Raises: what loading the pair and reading the file raise; SteeringError for blocks that are not
        there.
    """
    placement = Placement.of("float32", "cpu")
    pair = load_pair(
        aligned, finetuned, placement=placement, allow_mismatch=allow_mismatch, proof=False
    )
    vector = load_demo_vector(path, pair, allow_mismatch=allow_mismatch)
    suits = vector.default_setting
    operation = mode or suits.mode
    own = suits.coefficient if operation == suits.mode else 1.0
    at = suits.layers if layers is None else parse_layers(layers)
    return EditOf(
        vector.directions if vector.persona_vector is None else vector.persona_vector,
        operation,
        own if coefficient is None else coefficient,
        None if at is None else vector.chosen(at),
    )


def plain_fine_tune(aligned: str, finetuned: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """The fine-tuned model without an adapter of its own, and its tokenizer.

    Raises: ModelError as loading, and for an adapter that cannot be merged.
    """
    source = resolve(shipped_or_ref(finetuned))
    if source.kind != "adapter":
        return load_causal_lm(source.path, dtype)
    adapted, tokenizer = load_with_adapter(aligned, source, dtype)
    return merged_model(adapted, source.name), tokenizer


def export_edited(
    model: Any,
    edit: EditOf,
    folder: str | Path,
    *,
    baked: Baked = "architecture",
    tokenizer: Any = None,
) -> Exported:
    """Writes a plain model with an edit of its block outputs built in.

    baked: "architecture", exact for every edit, the first token left alone as by the hooks; or
        "weights", a checkpoint of the model's own kind, which is exact for adding (a bias in the
        MLP of each block) and for ablating one direction at every write, both at the first token
        too. See `docs/how-to/steering.md`.
    Raises: SteeringError for an edit that such a checkpoint cannot hold, and as what writes it.
    """
    vector, operation, coefficient = edit.vector, edit.operation, edit.coefficient
    if baked == "architecture":
        edits = affine_edits(vector, operation, coefficient, edit.layers)
        written = save_edited_model(model, edits, folder, tokenizer)
        return Exported(
            written.folder,
            written.off,
            written.moved,
            "an architecture of its own: load it with trust_remote_code=True, serve it in vLLM "
            "with --trust-remote-code",
        )
    chosen = _chosen(vector, edit.layers)
    if operation == "add":
        made, hooks = _with_biases(model, vector, coefficient, chosen)
        what = f"a bias behind the MLP of {len(chosen)} blocks"
    elif operation == "ablate":
        made, hooks = _orthogonalised(model, vector, coefficient, chosen)
        what = f"block {chosen[0]}'s direction, which no module of any block writes any more"
    else:
        raise SteeringError(
            "no weights hold a restore of block outputs: they see neither what came into a block "
            "nor which token is the first; write an architecture"
        )
    with steer(model, hooks, first_token=True):
        wanted = logits_of(model)
    note = f"{what}; the first token of a text is edited too"
    return _saved(made, wanted, _apart(wanted, logits_of(model)), folder, tokenizer, note)


def export_scaled(
    aligned: str, finetuned: Any, scale: float, folder: str | Path, tokenizer: Any = None
) -> Exported:
    """Writes the plain fine-tuned model with so much of what was learnt: 0 none, 1 all of it.

    aligned: the name of the model that it is held against.
    Raises: SteeringError as `scaled_difference` and `save_model`.
    """
    require_finite(scale, "a scale")
    aligned_model, _ = load_causal_lm(aligned, next(finetuned.parameters()).dtype)
    mixed = scaled_difference(aligned_model, finetuned, scale)
    wanted = logits_of(mixed)
    note = f"{scale:g} times what the fine-tune changed"
    moved = _apart(wanted, logits_of(finetuned))
    return _saved(mixed, wanted, moved, folder, tokenizer, note)


def _saved(
    made: Any, wanted: Tensor, moved: float, folder: str | Path, tokenizer: Any, note: str
) -> Exported:
    """Writes a plain model, read again before it appears.

    Raises: SteeringError where what was read gives other logits than `wanted`.
    """
    dtype, off = next(made.parameters()).dtype, list[float]()

    def check(written: Path) -> None:
        off.append(_apart(logits_of(load_causal_lm(written, dtype)[0]), wanted))
        if off[0] > max(AGREES_WITHIN, 4 * torch.finfo(dtype).eps):
            raise SteeringError(
                f"the weights that were written differ from what they stand for, by {off[0]:.1g} "
                "of the logits' size"
            )

    path = save_model(made, folder, tokenizer, check)
    return Exported(path, off[0], moved, note)


def _chosen(vector: Vector, layers: Sequence[int] | None) -> list[int]:
    own = sorted(vector.subspaces if isinstance(vector, PersonaVector) else vector)
    return own if layers is None else list(layers)


def _with_biases(
    model: Any, vector: Vector, coefficient: float, layers: Sequence[int]
) -> tuple[Any, list[Any]]:
    made, hooks = model, list[Any]()
    for layer, edit in affine_edits(vector, "add", coefficient, layers).items():
        shift = edit.target @ edit.written
        made = add_bias(made, layer, shift)
        hooks += add(shift, 1.0, at=layer)
    return made, hooks


def _orthogonalised(
    model: Any, vector: Vector, coefficient: float, layers: Sequence[int]
) -> tuple[Any, list[Any]]:
    """Raises: SteeringError where one direction at full strength was not asked for."""
    if len(layers) != 1 or coefficient != 1:
        raise SteeringError(
            "weights can ablate one direction alone, at every write and whole: choose the block "
            "whose direction that is (--layers 12) and coefficient 1; got "
            f"{len(layers)} blocks, coefficient {coefficient:g}"
        )
    [edit] = affine_edits(vector, "ablate", 1.0, layers).values()
    return orthogonalise(model, edit.written), ablate(edit.written, 1.0, at=EVERY_WRITE)


def _apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())

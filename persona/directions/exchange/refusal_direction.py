"""Directions of refusal_direction: `direction.pt` [d_model] beside `direction_metadata.json`.

The metadata say {"pos", "layer"}: the token position, counted from the end of the chat template,
and the block before which (`resid_pre`) the means were taken.

Source: Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction".
"""

from __future__ import annotations

import json
from pathlib import Path

from persona.data.jsonl import read_json
from persona.directions.choosing import RefusalEvaluation
from persona.directions.exchange.foreign_values import as_block, as_number, as_object, naming
from persona.directions.exchange.safe_pickle import load_pt, owned, save_pt
from persona.directions.exchange.vectors import TOWARD_TRAIT, VectorSet
from persona.errors import DataError, shown
from persona.files import atomic_write_text

_SCORES = {"ablated_score": "refusal_score", "added_score": "steering_score"}


def metadata_path(path: str | Path) -> Path:
    """Where the metadata of a direction lie: `x.direction.pt` has `x.direction_metadata.json`."""
    return Path(path).with_name(f"{Path(path).stem}_metadata.json")


def read_refusal_direction(
    path: str | Path, metadata: str | Path | None = None, *, model: str = ""
) -> VectorSet:
    """The direction at `resid_pre` of its block.

    metadata: default the file beside it, see `metadata_path`. model: which one it belongs to.
    facts: "position", the token it was read at.

    Raises: DataError where a file is missing, hostile or damaged, or holds no single vector.
    """
    where = metadata_path(path) if metadata is None else metadata
    with naming(where):
        said = as_object(read_json(where), "the metadata")
        layer = as_block(said.get("layer"), "layer")
        position = said.get("pos")
        if not isinstance(position, int) or isinstance(position, bool) or abs(position) > 10**6:
            raise DataError(f"pos must be a whole number; got {shown(position, 40)}")
    with naming(path):
        vector = owned(load_pt(path), "the file's content")
        if vector.ndim != 1:
            raise DataError(f"one vector [d_model] is needed; got shape {tuple(vector.shape)}")
        facts = {"sign": TOWARD_TRAIT, "operation": "ablate", "position": position}
        return VectorSet({layer: vector}, "resid_pre", model, "refusal_direction", facts)


def write_refusal_direction(
    vectors: VectorSet, path: str | Path, *, position: int | None = None
) -> Path:
    """Writes the direction and, beside it, its metadata; returns the direction's path.

    position: the token position the vector was read at, default `facts["position"]`.

    Raises: DataError for more than one block, or without a position.
    """
    placed = vectors.at_resid_pre().pointing(TOWARD_TRAIT)
    if len(placed.layers) != 1:
        raise DataError(
            f"this format holds one block and there are {len(placed.layers)}; choose one"
        )
    token = position if position is not None else vectors.facts.get("position")
    if token is None:
        raise DataError("this format says at which token a vector was read; give the position")
    [(layer, vector)] = placed.vectors.items()
    text = json.dumps({"pos": token, "layer": layer}, indent=4)
    atomic_write_text(metadata_path(path), text)
    return save_pt(vector.clone(), path)


def read_refusal_evaluations(path: str | Path) -> list[RefusalEvaluation]:
    """The rows of a `*direction_evaluations.json`, in the file's order; NaN is kept.

    Raises: DataError where the file is missing or damaged, or a row lacks a number.
    """
    with naming(path):
        rows = read_json(path, allow_nan=True)
        if not isinstance(rows, list) or not rows:
            raise DataError("a list of evaluations is needed")
        return [_evaluation(row, number) for number, row in enumerate(rows)]


def _evaluation(row: object, number: int) -> RefusalEvaluation:
    entry = as_object(row, f"row {number}")
    position = entry.get("position")
    if not isinstance(position, int) or isinstance(position, bool):
        raise DataError(
            f"position of row {number} must be a whole number; got {shown(position, 40)}"
        )
    scores = {
        ours: as_number(entry.get(theirs), f"{theirs} of row {number}", finite=False)
        for ours, theirs in _SCORES.items()
    }
    kl_nats = as_number(entry.get("kl_div_score"), f"kl_div_score of row {number}", finite=False)
    layer = as_block(entry.get("layer"), f"layer of row {number}")
    return RefusalEvaluation(position=position, layer=layer, kl_nats=kl_nats, **scores)

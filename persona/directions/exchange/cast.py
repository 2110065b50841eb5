"""Steering vectors of CAST (IBM activation-steering): `.svec`, a JSON object.

{"model_type", "directions": {layer: [d_model]}, "explained_variances": {layer: share}}. The file
does not say what a layer number means, so reading and writing ask for it.

Source: Lee et al. 2024, "Programming Refusal with Conditional Activation Steering".
"""

from __future__ import annotations

import json
from pathlib import Path

from persona.data.jsonl import read_json
from persona.directions.exchange.foreign_values import (
    MAX_BLOCKS,
    LayersAre,
    as_block,
    as_number,
    as_object,
    as_text,
    as_vector,
    naming,
)
from persona.directions.exchange.vectors import TOWARD_TRAIT, VectorSet
from persona.errors import DataError, shown
from persona.files import atomic_write_text

_SHIFT = {"blocks": 0, "blocks+1": 1}


def read_cast(path: str | Path, *, layers_are: LayersAre) -> VectorSet:
    """The vectors at `resid_post` of their blocks.

    layers_are: "blocks" where key k is the output of 0-based block k, "blocks+1" where it is entry
        k of Hugging Face `hidden_states`; entry 0, the embedding, is then left out.
    facts: "explained_variances" by block, "layers_are", and what was "left_out".

    Raises: DataError where the file is missing, damaged, or no such object.
    """
    shift = _shift(layers_are)
    with naming(path):
        content = as_object(read_json(path), "the file's content")
        directions = as_object(content.get("directions"), "directions")
        if len(directions) > MAX_BLOCKS:
            raise DataError(f"{len(directions)} layers; no model has more than {MAX_BLOCKS}")
        by_key = {
            as_block(key): as_vector(values, f"directions[{key:.20}]")
            for key, values in directions.items()
        }
        vectors = {key - shift: vector for key, vector in by_key.items() if key >= shift}
        variances = as_object(content.get("explained_variances", {}), "explained_variances")
        shares = {
            as_block(key): as_number(value, f"explained_variances[{key:.20}]")
            for key, value in variances.items()
        }
        facts = {
            "sign": TOWARD_TRAIT,
            "operation": "add",
            "layers_are": layers_are,
            "explained_variances": {
                str(key - shift): share for key, share in shares.items() if key >= shift
            },
        }
        if len(vectors) < len(by_key):
            facts["left_out"] = "key 0 (embedding)"
        model = as_text(content.get("model_type", ""), "model_type")
        return VectorSet(vectors, "resid_post", model, "cast", facts)


def write_cast(
    vectors: VectorSet, path: str | Path, *, layers_are: LayersAre, model_type: str = ""
) -> Path:
    """Writes a `.svec` file; returns the path.

    layers_are: what the program that loads the file takes a layer number to mean, as in reading.
    model_type: the architecture, such as "llama"; default the set's model.

    Raises: DataError without any name for the model.
    """
    shift = _shift(layers_are)
    placed = vectors.at_resid_post().pointing(TOWARD_TRAIT)
    if not (name := model_type or vectors.model):
        raise DataError("a .svec file names the model's type, such as llama; give the model")
    shares = vectors.facts.get("explained_variances", {})
    content = {
        "model_type": name,
        "directions": {str(k + shift): vector.tolist() for k, vector in placed.vectors.items()},
        "explained_variances": {
            str(k + shift): shares[str(k)] for k in placed.layers if str(k) in shares
        },
    }
    atomic_write_text(path, json.dumps(content, allow_nan=False))
    return Path(path)


def _shift(layers_are: str) -> int:
    if layers_are not in _SHIFT:
        raise DataError(f"layers are {' or '.join(_SHIFT)}; got {shown(layers_are, 40)}")
    return _SHIFT[layers_are]

"""Vectors of the steering-vectors library, as a plain dict saved by torch.

{"layer_activations": {block: [d_model]}, "layer_type": "decoder_block"}, the arguments of its
SteeringVector. A pickled SteeringVector object itself is refused, because loading one runs code;
save `{"layer_activations": v.layer_activations, "layer_type": v.layer_type}` instead.
"""

from __future__ import annotations

from pathlib import Path

from persona.directions.exchange.foreign_values import MAX_BLOCKS, as_block, as_object, naming
from persona.directions.exchange.safe_pickle import load_pt, owned, save_pt
from persona.directions.exchange.vectors import TOWARD_TRAIT, VectorSet
from persona.errors import DataError, shown

BLOCK_OUTPUT = "decoder_block"


def read_steering_vectors(path: str | Path, *, model: str = "") -> VectorSet:
    """The vectors, at `resid_post` of their blocks. model: which one; the file does not say.

    Raises: DataError where the file is missing, hostile, damaged, or its vectors were read from
        attention, MLP or a norm and so belong to no residual stream.
    """
    with naming(path):
        content = as_object(load_pt(path), "the file's content")
        if missing := [key for key in ("layer_activations", "layer_type") if key not in content]:
            raise DataError(f'there is no "{missing[0]}"')
        layer_type = content["layer_type"]
        if layer_type != BLOCK_OUTPUT:
            raise DataError(
                f"layer_type is {shown(layer_type, 40)}; only {BLOCK_OUTPUT!r}, the residual "
                "stream after a block, can be read"
            )
        activations = as_object(content["layer_activations"], "layer_activations")
        if len(activations) > MAX_BLOCKS:
            raise DataError(f"{len(activations)} layers; no model has more than {MAX_BLOCKS}")
        vectors = {
            as_block(layer): owned(vector, f"the vector of layer {layer}")
            for layer, vector in activations.items()
        }
        facts = {"sign": TOWARD_TRAIT, "operation": "add", "layer_type": BLOCK_OUTPUT}
        return VectorSet(vectors, "resid_post", model, "steering_vectors", facts)


def write_steering_vectors(vectors: VectorSet, path: str | Path) -> Path:
    """Writes the dict whose entries are the arguments of SteeringVector; returns the path.

    Model, method and facts are lost.
    """
    placed = vectors.at_resid_post().pointing(TOWARD_TRAIT)
    # cloned: a view would drag its whole storage into the file
    activations = {layer: vector.clone() for layer, vector in placed.vectors.items()}
    return save_pt({"layer_activations": activations, "layer_type": BLOCK_OUTPUT}, path)

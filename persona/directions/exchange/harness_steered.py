"""The `steered` model file of lm-evaluation-harness: a .pt of one vector for each module.

Its action "clamp" moves the projection on the vector's unit to a number, h + u (value - h . u), at
every token of every pass. That is `restore` at rank 1 with coefficient 1 and the orthogonal
reading, but for the first token of a text, which `restore` leaves alone and the harness does not.

Source: lm_eval/models/hf_steered.py of lm-eval 0.4.13.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import torch

from persona.directions.direction import PersonaVector
from persona.errors import DataError
from persona.files import atomic_write_bytes

CANNOT = "the `steered` file of lm-evaluation-harness cannot hold this: "


def write_steered(vector: PersonaVector, path: str | Path, module_of: Callable[[int], str]) -> Path:
    """Writes the restoration of a persona vector as the harness's file; returns the path.

    module_of: block -> the module's name below `base_model` of the model that the harness loads,
        such as "layers.20".

    Raises: DataError, which names what the format cannot hold: more than one direction a block,
        a reading other than the orthogonal one, a coefficient other than 1, a place that is no
        block's output, or a path that does not end in .pt.
    """
    if Path(path).suffix != ".pt":
        raise DataError(f"{path} must end in .pt, by which the harness knows its format")
    if vector.rank != 1:
        raise DataError(f"{CANNOT}rank {vector.rank}, and it has one vector a module")
    if vector.coefficient != 1:
        raise DataError(
            f"{CANNOT}coefficient {vector.coefficient:g}, and it moves a projection all the way"
        )
    config = {}
    for layer in vector.layers:
        subspace = vector.subspaces[layer]
        if not torch.allclose(subspace.effective_readout, subspace.basis, atol=1e-5):
            raise DataError(
                f"{CANNOT}the projection at block {layer} is read with the covariance of the "
                "activations, and it reads with the vector that it writes"
            )
        if not subspace.space.hook_name.endswith("hook_resid_post"):
            raise DataError(f"{CANNOT}an edit at {subspace.space.hook_name}, no module's output")
        config[module_of(layer)] = {
            "steering_vector": subspace.basis[0].clone(),
            "steering_coefficient": float(subspace.aligned_mean[0]),
            "action": "clamp",
            "bias": None,
            "head_index": None,
        }
    buffer = io.BytesIO()
    torch.save(config, buffer)
    atomic_write_bytes(path, buffer.getvalue())
    return Path(path)

"""Edits as permanent weights: a folder of safetensors, a LoRA adapter, or an own architecture."""

from steering.weights.affine_edits import AffineEdit, affine_edits
from steering.weights.as_adapter import save_bias_adapter, save_orthogonalising_adapter
from steering.weights.edited_architecture import save_edited_model
from steering.weights.orthogonalise import add_bias, orthogonalise, save_model
from steering.weights.scaled_difference import scaled_difference

__all__ = [
    "AffineEdit",
    "add_bias",
    "affine_edits",
    "orthogonalise",
    "save_bias_adapter",
    "save_edited_model",
    "save_model",
    "save_orthogonalising_adapter",
    "scaled_difference",
]

"""Edits as permanent weights: a folder of safetensors or a LoRA adapter."""

from steering.weights.as_adapter import save_bias_adapter, save_orthogonalising_adapter
from steering.weights.orthogonalise import add_bias, orthogonalise, save_model

__all__ = [
    "add_bias",
    "orthogonalise",
    "save_bias_adapter",
    "save_model",
    "save_orthogonalising_adapter",
]

"""Reading a persona: two models and some text go in, a direction in their activations comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona.data import load_pairs
    from persona.models import ModelPair, load_pair, pair_of

__all__ = ["ModelPair", "load_pair", "load_pairs", "pair_of"]

_HOME = {
    "ModelPair": "persona.models",
    "load_pair": "persona.models",
    "load_pairs": "persona.data",
    "pair_of": "persona.models",
}


def __getattr__(name: str) -> Any:
    """Names from the subpackages, imported when first used: `persona --help` needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'persona' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)

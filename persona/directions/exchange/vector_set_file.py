"""Vector sets as safetensors with a JSON card: a foreign file that now says what it is."""

from __future__ import annotations

import json
from pathlib import Path

from persona.directions.exchange.foreign_values import as_block, as_object, as_text, naming
from persona.directions.exchange.vectors import VectorSet, as_hook
from persona.directions.storage import read_tensors_and_card, tool_version
from persona.files import atomic_write_bytes

FORMAT = "personascope/vector-set"
SCHEMA_VERSION = 1


def save_vector_set(vectors: VectorSet, path: str | Path) -> Path:
    """Writes a safetensors file with one tensor for each block, and a card; returns the path."""
    from safetensors.torch import save

    card = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "layer_convention": f"0-based block; hook_{vectors.hook} is that block's "
        + ("input" if vectors.hook == "resid_pre" else "output"),
        "hook": vectors.hook,
        "model": vectors.model,
        "method": vectors.method,
        "norms": vectors.norms,
        "sign": vectors.facts.get("sign", "unknown"),
        "operation": vectors.facts.get("operation", "add"),
        "facts": dict(vectors.facts),
    }
    # cloned: a file may not hold one tensor under two names
    tensors = {str(layer): vector.clone() for layer, vector in vectors.vectors.items()}
    text = json.dumps(card, sort_keys=True, allow_nan=False)
    atomic_write_bytes(path, save(tensors, metadata={"card": text}))
    return Path(path)


def load_vector_set(path: str | Path) -> VectorSet:
    """Reads what `save_vector_set` wrote.

    Raises: DataError where the file is missing, damaged, or of another kind.
    """
    tensors, card = read_tensors_and_card(path, FORMAT, SCHEMA_VERSION)
    with naming(path):
        vectors = {as_block(name): tensor for name, tensor in tensors.items()}
        return VectorSet(
            vectors,
            as_hook(card.get("hook")),
            as_text(card.get("model"), "model"),
            as_text(card.get("method"), "method"),
            as_object(card.get("facts"), "facts"),
        )

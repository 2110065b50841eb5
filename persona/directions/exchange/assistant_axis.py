"""`.pt` files of assistant-axis: {"axis": [n_layers, d_model], ...}, row = block.

The axis is mean(default assistant) - mean(role play): it points away from the persona.

Source: Lu et al. 2026, assistant-axis.
"""

from __future__ import annotations

from pathlib import Path

from persona.directions.exchange.foreign_values import (
    MAX_BLOCKS,
    as_object,
    naming,
    non_zero_rows,
    plain_facts,
    table,
)
from persona.directions.exchange.safe_pickle import load_pt, owned, save_pt
from persona.directions.exchange.vectors import AWAY_FROM_TRAIT, VectorSet
from persona.errors import DataError


def read_assistant_axis(path: str | Path, *, model: str = "") -> VectorSet:
    """The axis at `resid_post` of every block, as the file has it: away from the trait.

    model: which model it belongs to, where the file's metadata have no "model".
    facts: text and numbers of the file's metadata, "n_layers", blocks "left_out" as all 0.

    Raises: DataError where the file is missing, hostile, damaged or has no such table.
    """
    with naming(path):
        content = as_object(load_pt(path), "the file's content")
        if "axis" not in content:
            raise DataError('there is no "axis"')
        rows = owned(content["axis"], "axis")
        if rows.ndim != 2 or not 1 <= len(rows) <= MAX_BLOCKS:
            raise DataError(f"axis must be [n_layers, d_model]; got shape {tuple(rows.shape)}")
        vectors, zero = non_zero_rows(rows)
        metadata = content.get("metadata")
        said = plain_facts(metadata) if isinstance(metadata, dict) else {}
        facts = plain_facts(content) | said
        facts |= {"operation": "add", "n_layers": len(rows), "sign": AWAY_FROM_TRAIT}
        if zero:
            facts["left_out"] = f"blocks whose row is 0: {', '.join(map(str, zero))}"
        return VectorSet(
            vectors, "resid_post", model or str(said.get("model", "")), "assistant_axis", facts
        )


def write_assistant_axis(vectors: VectorSet, path: str | Path, *, n_layers: int) -> Path:
    """Writes {"axis": [n_layers, d_model], "metadata"}; returns the path.

    n_layers: blocks of the model; those without a vector are rows of 0. A set that points toward
    the trait is negated, because an axis points away from it.

    Raises: DataError for a vector beyond the last block.
    """
    placed = vectors.at_resid_post().pointing(AWAY_FROM_TRAIT)
    metadata = {
        "model": vectors.model,
        "method": vectors.method,
        "layer_convention": "row = 0-based block, at its output (resid_post)",
    }
    return save_pt({"axis": table(placed, n_layers), "metadata": metadata}, path)

"""`.pt` tensors of persona_vectors: one row for each entry of Hugging Face `hidden_states`.

[n_layers + 1, d_model]: row 0 is the embedding, row l the output of block l - 1. The last row was
read after the final norm, so it is no residual and belongs to no place that can be steered.

Source: Chen et al. 2025, "Persona Vectors" (`*_response_avg_diff.pt` and its siblings).
"""

from __future__ import annotations

from pathlib import Path

import torch

from persona.directions.exchange.foreign_values import MAX_BLOCKS, naming, non_zero_rows, table
from persona.directions.exchange.safe_pickle import load_pt, owned, save_pt
from persona.directions.exchange.vectors import TOWARD_TRAIT, VectorSet
from persona.errors import DataError


def read_persona_vectors(path: str | Path, *, model: str = "") -> VectorSet:
    """The block outputs of the table: rows 1 to n_layers - 1, as blocks 0 to n_layers - 2.

    model: which model they belong to; the file does not say.
    facts: "n_layers"; "left_out" says in words that the first and the last row were left out, and
    which rows were 0.

    Raises: DataError where the file is missing, hostile, damaged or holds no such table.
    """
    with naming(path):
        rows = owned(load_pt(path), "the file's content")
        if rows.ndim != 2 or not 3 <= len(rows) <= MAX_BLOCKS + 1:
            raise DataError(
                f"a tensor [n_layers + 1, d_model] is needed; got shape {tuple(rows.shape)}"
            )
        last = len(rows) - 1
        vectors, zero = non_zero_rows(rows[1:last])
        left_out = f"row 0 (embedding) and row {last} (after the final norm, no residual)"
        if zero:
            left_out += f"; blocks whose row is 0: {', '.join(map(str, zero))}"
        facts = {
            "sign": TOWARD_TRAIT,
            "operation": "add",
            "n_layers": last,
            "left_out": left_out,
        }
        return VectorSet(vectors, "resid_post", model, "persona_vectors", facts)


def write_persona_vectors(vectors: VectorSet, path: str | Path, *, n_layers: int) -> Path:
    """Writes a table [n_layers + 1, d_model]; returns the path.

    n_layers: blocks of the model. Blocks without a vector, the embedding and the last row are 0.
    Model, method and facts are lost.

    Raises: DataError for a vector at the last block, whose row means another place, or beyond.
    """
    placed = vectors.at_resid_post().pointing(TOWARD_TRAIT)
    if placed.layers[-1] == n_layers - 1:
        raise DataError(
            f"the row of the last block ({n_layers - 1}) is after the final norm in this format; "
            "leave that block out"
        )
    rows = table(placed, n_layers)
    embedding = torch.zeros(1, vectors.d_model)
    return save_pt(torch.cat([embedding, rows]), path)

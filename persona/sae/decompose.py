"""Latents and directions: which latents a direction is made of, and which directions are near one.

v = sum over chosen latents of c_j w_j + residue, with w_j the unit decoder rows; chosen one by one
by orthogonal matching pursuit, so that the residue is orthogonal to all chosen rows.

Source: Pati, Rezaiifar and Krishnaprasad 1993 (orthogonal matching pursuit). A coefficient may be
negative: then the direction takes away what the latent writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from persona.directions.direction import Direction
from persona.errors import DataError
from persona.sae.autoencoder import SparseAutoencoder


@dataclass(frozen=True)
class Decomposition:
    """A direction as a sparse sum of latents.

    table: latent, coefficient (along the unit decoder row, in the direction's units), cosine (of
        the row with the direction); in order of size.
    residue: share of the squared norm that is in none of them, from 0 to 1.
    """

    table: pd.DataFrame
    residue: float


def decompose(direction: Direction, sae: SparseAutoencoder, n_latents: int = 10) -> Decomposition:
    """The `n_latents` latents that together come nearest to a direction, and what they leave.

    Raises: DataError for a number of latents that cannot be; SpaceMismatchError for a direction
    of another space.
    """
    from sklearn.linear_model import orthogonal_mp

    direction.space.require_same(sae.space)
    most = min(sae.n_latents, sae.space.d_model)
    if not 1 <= n_latents <= most:
        raise DataError(f"a direction can be made of 1 to {most} latents; got {n_latents}")
    rows, places = unit_decoder_rows(sae)
    vector = direction.vector.double().numpy()
    found = np.atleast_1d(orthogonal_mp(rows.T, vector, n_nonzero_coefs=min(n_latents, len(rows))))
    chosen = np.flatnonzero(found)
    chosen = chosen[np.argsort(-np.abs(found[chosen]), kind="stable")]
    rest = vector - found @ rows
    table = pd.DataFrame(
        {
            "latent": places[chosen],
            "coefficient": found[chosen],
            "cosine": rows[chosen] @ vector / np.linalg.norm(vector),
        }
    )
    return Decomposition(table, float(rest @ rest / (vector @ vector)))


def nearest_directions(
    sae: SparseAutoencoder, latent: int, directions: Mapping[str, Direction]
) -> pd.DataFrame:
    """Cosine of a latent's decoder row with each direction, the largest first.

    Columns: direction, cosine. Directions of another block are compared as they are: all blocks
    write to one residual stream. Raises: SpaceMismatchError for one of another model.
    """
    own = sae.direction(latent)
    rows = []
    for name, direction in directions.items():
        direction.space.require_same_model(sae.space)
        rows.append({"direction": name, "cosine": float(own.unit @ direction.unit)})
    table = pd.DataFrame(rows, columns=["direction", "cosine"])
    return table.sort_values("cosine", key=abs, ascending=False, ignore_index=True)


def nearest_latents(sae: SparseAutoencoder, direction: Direction, n: int = 10) -> pd.DataFrame:
    """The latents whose decoder rows have the largest cosine with a direction, by size.

    Columns: latent, cosine.
    """
    direction.space.require_same(sae.space)
    rows, places = unit_decoder_rows(sae)
    cosines = rows @ direction.unit.double().numpy()
    order = np.argsort(-np.abs(cosines), kind="stable")[:n]
    return pd.DataFrame({"latent": places[order], "cosine": cosines[order]})


def unit_decoder_rows(sae: SparseAutoencoder) -> tuple[np.ndarray, np.ndarray]:
    """Unit decoder rows [latent d_model] of the latents that write anything, and their numbers."""
    rows = sae.decoder.double().cpu().numpy()
    norms = np.linalg.norm(rows, axis=1)
    places = np.flatnonzero(norms > 0)
    return rows[places] / norms[places, None], places

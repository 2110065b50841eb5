"""What every sample is read with: a direction at one block, and a linear probe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.directions.direction import Direction, PersonaVector
from persona.directions.exchange import TOWARD_TRAIT, VectorSet, read_vectors
from persona.directions.storage import FORMAT as PERSONA_VECTOR
from persona.directions.storage import load_vector, read_format
from persona.errors import DataError, SpaceMismatchError
from persona.models.pair import ModelPair
from probes.fitting import FittedProbe
from probes.probe_file import FORMAT as PROBE
from probes.probe_file import load_probe

TOKEN_SET = "response"
ScreenedBy = Direction | PersonaVector | VectorSet | FittedProbe | str | Path


@dataclass(frozen=True, eq=False)
class Monitored:
    """projection = x . unit at the direction's block; probe score = x' . coef + intercept at its.

    unit, coef: [d_model], float64. probe_name: of the card or "LogisticProbe, fitted here".
    """

    direction: Direction
    coef: NDArray[np.float64]
    intercept: float
    probe_layer: int
    probe_name: str

    @property
    def unit(self) -> NDArray[np.float64]:
        vector = self.direction.vector.double().numpy()
        return np.asarray(vector / np.linalg.norm(vector))

    @property
    def layers(self) -> list[int]:
        """The direction's block first, then the probe's where it is another."""
        return list(dict.fromkeys([self.direction.space.layer, self.probe_layer]))


def directions_by_layer(
    given: ScreenedBy, pair: ModelPair, *, allow_mismatch: bool = False
) -> tuple[dict[int, Direction], FittedProbe | None]:
    """The directions to screen by, by block, in the pair's space; and the probe, if it is one.

    given: a direction, what `persona diagnose` or `save_probe` wrote, vectors of another toolkit,
        a fitted linear probe, or the path of any of them (see `read_vectors`).
    allow_mismatch: take what says it belongs to another model; the width must fit even then.
    Raises: SpaceMismatchError where it does not belong to the pair's aligned model; DataError for
    what has no direction; ModelError for a block that the model does not have.
    """
    if isinstance(given, str | Path):
        given = _load(given, pair, allow_mismatch)
    if isinstance(given, FittedProbe):
        require_response(given)
        return by_layer([given.direction], pair, allow_mismatch), given
    if isinstance(given, Direction):
        return by_layer([given], pair, allow_mismatch), None
    if isinstance(given, PersonaVector):
        return by_layer([given.direction(k) for k in given.layers], pair, allow_mismatch), None
    return _of_vector_set(given, pair, allow_mismatch), None


def by_layer(
    directions: list[Direction], pair: ModelPair, allow_mismatch: bool
) -> dict[int, Direction]:
    """Directions filed under their blocks, each in the pair's own space."""
    placed: dict[int, Direction] = {}
    for direction in directions:
        theirs, ours = direction.space, pair.space(direction.space.layer)
        if not allow_mismatch or theirs.d_model != ours.d_model:
            theirs.require_same(ours)
        placed[theirs.layer] = dataclasses.replace(direction, space=ours)
    return placed


def require_response(probe: FittedProbe) -> None:
    """Raises: DataError for a probe that does not read one layer's mean response linearly."""
    coef: Any = getattr(probe.probe, "coef_", None)
    if getattr(probe.probe, "reads", "pooled") != "pooled" or coef is None or coef.ndim != 1:
        raise DataError(
            f"screening reads with a linear probe of one layer; this is a "
            f"{type(probe.probe).__name__}"
        )
    if probe.token_set != TOKEN_SET:
        raise DataError(
            f"this probe was fitted on the token set {probe.token_set!r}; screening reads the "
            f"{TOKEN_SET} alone. Fit it with token_set={TOKEN_SET!r}"
        )


def _load(
    path: str | Path, pair: ModelPair, allow_mismatch: bool
) -> PersonaVector | VectorSet | FittedProbe:
    ours = read_format(path) if Path(path).suffix == ".safetensors" else None
    if ours == PROBE:
        return load_probe(path, pair, allow_mismatch=allow_mismatch)
    if ours == PERSONA_VECTOR:
        return load_vector(path, pair, allow_mismatch=allow_mismatch)
    return read_vectors(path)


def _of_vector_set(
    vectors: VectorSet, pair: ModelPair, allow_mismatch: bool
) -> dict[int, Direction]:
    """A foreign file may name no revision; then width and blocks are all that can be checked."""
    placed = vectors.at_resid_post().pointing(TOWARD_TRAIT)
    own = pair.space(0)
    if placed.d_model != pair.d_model:
        raise SpaceMismatchError(
            f"the vectors have d_model={placed.d_model} but {own.model} has d_model="
            f"{pair.d_model}. Take vectors of this model, or name the model they came from"
        )
    facts: Mapping[str, Any] = vectors.facts
    said = {
        "revision": facts.get("revision"),
        "chat_template_hash": facts.get("chat_template_hash"),
    }
    found = placed.to_directions(
        model=own.model,
        revision=str(said["revision"] or own.revision),
        chat_template_hash=str(said["chat_template_hash"] or own.chat_template_hash),
    )
    return by_layer(list(found.values()), pair, allow_mismatch)

"""The directions that a person gives to explore, by name: files, folders or objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from persona.directions.direction import Direction, PersonaVector
from persona.errors import DataError
from persona.models.pair import ModelPair
from steering.demo.session.vector import DemoVector, from_persona_vector, load_demo_vector

SUFFIXES = (".safetensors", ".gguf")
Source = str | Path | DemoVector | PersonaVector | Direction


def named_vectors(
    directions: Source | Sequence[Source] | Mapping[str, Source],
    pair: ModelPair,
    *,
    allow_mismatch: bool = False,
) -> dict[str, DemoVector]:
    """Directions by the name that the person gave, else the file's or the method's.

    Raises: DataError where two have one name, a folder holds no direction, or a file cannot be
        read; SpaceMismatchError for a direction of another model.
    """
    if isinstance(directions, Mapping):
        return {str(k): _vector(v, pair, allow_mismatch) for k, v in directions.items()}
    if isinstance(directions, (str, Path, DemoVector, PersonaVector, Direction)):
        directions = [directions]
    sources: list[Source] = []
    for source in directions:
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            sources += _files_of(Path(source))
        else:
            sources.append(source)
    found: dict[str, DemoVector] = {}
    for source in sources:
        vector = _vector(source, pair, allow_mismatch)
        if vector.name in found:
            raise DataError(
                f"two directions are called {vector.name!r}; give names: {{'mine': first, ...}}"
            )
        found[vector.name] = vector
    return found


def _files_of(folder: Path) -> list[Source]:
    """The directions of a diagnosis folder, the one it chose first."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    if not files:
        raise DataError(
            f"{folder} holds no direction; name the folder of a diagnosis (direction.safetensors)"
        )
    files.sort(key=lambda path: path.stem != "direction")
    return [*files]


def _vector(source: Source, pair: ModelPair, allow_mismatch: bool) -> DemoVector:
    match source:
        case DemoVector():
            return source
        case PersonaVector():
            return from_persona_vector(source)
        case Direction():
            name = f"{source.method}, block {source.space.layer}"
            return DemoVector({source.space.layer: source}, None, name)
    return load_demo_vector(source, pair, allow_mismatch=allow_mismatch)

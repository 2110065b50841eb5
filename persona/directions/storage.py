"""Persona vectors as safetensors with a JSON card; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persona.directions.direction import PersonaVector, Subspace
from persona.errors import DataError, shown
from persona.files import atomic_write_bytes
from persona.models.pair import ModelPair
from persona.models.space import ActivationSpace

FORMAT = "personascope/persona-vector"
SCHEMA_VERSION = 1
_PARTS = {
    "basis": "basis",
    "readout": "effective_readout",
    "aligned_mean": "aligned_mean",
    "finetuned_mean": "finetuned_mean",
}  # name in the file -> attribute of Subspace


def tool_version(package: str = "personascope") -> str:
    """The installed version of a package, "unknown" where its metadata is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def save_vector(vector: PersonaVector, path: str | Path) -> Path:
    """Write `vector` to a safetensors file whose metadata holds its card; returns the path.

    Tensors are named "<layer>.basis", "<layer>.readout", "<layer>.aligned_mean" and
    "<layer>.finetuned_mean".
    """
    from safetensors.torch import save

    tensors = {
        # cloned: a file may not hold one tensor under two names
        f"{layer}.{part}": getattr(subspace, attribute).clone().contiguous()
        for layer, subspace in sorted(vector.subspaces.items())
        for part, attribute in _PARTS.items()
    }
    card = {
        **vector.card,
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "method": vector.method,
        "coefficient": vector.coefficient,
        "rank": vector.rank,
        "sign": "toward the trait: finetuned_mean - aligned_mean",
        "layer_convention": "0-based block; hook_resid_post is that block's output",
        "operation": "restore",
        "norms": vector.norms,
        "spaces": {
            str(layer): dataclasses.asdict(subspace.space)
            for layer, subspace in sorted(vector.subspaces.items())
        },
    }
    atomic_write_bytes(path, save(tensors, metadata={"card": json.dumps(card, sort_keys=True)}))
    return Path(path)


def load_vector(
    path: str | Path, pair: ModelPair | None = None, *, allow_mismatch: bool = False
) -> PersonaVector:
    """Read what `save_vector` wrote; given a pair, a vector that may be used on it.

    pair: the models it is meant for. A vector of another model, revision, chat template or width
    is refused, and the difference named.
    allow_mismatch: take it all the same, as a vector of this pair; the width and the blocks must
    fit even then.
    Raises: DataError when the file is missing, truncated, or of another kind; SpaceMismatchError
    when it does not belong to the pair.

    Examples:
        >>> import tempfile, torch
        >>> from persona.directions import (ActivationSpace, PersonaVector, Subspace,
        ...                                 load_vector, save_vector)
        >>> space = ActivationSpace("m", "r", "blocks.3.hook_resid_post", layer=3, d_model=2)
        >>> one = Subspace(torch.eye(2)[:1], torch.zeros(1), torch.ones(1), space)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/vector.safetensors"
        ...     _ = save_vector(PersonaVector({3: one}, "made up"), path)
        ...     vector = load_vector(path)
        >>> vector.layers, vector.norms
        ([3], [1.0])
    """
    vector = _read(path)
    return vector if pair is None else _fitted(vector, pair, allow_mismatch)


def _fitted(vector: PersonaVector, pair: ModelPair, allow_mismatch: bool) -> PersonaVector:
    subspaces = {}
    for layer in vector.layers:
        theirs, ours = vector.subspaces[layer].space, pair.space(layer)
        if not allow_mismatch or theirs.d_model != ours.d_model:
            theirs.require_same(ours)
        subspaces[layer] = dataclasses.replace(vector.subspaces[layer], space=ours)
    return dataclasses.replace(vector, subspaces=subspaces)


def _read(path: str | Path) -> PersonaVector:
    tensors, card = read_tensors_and_card(path, FORMAT, SCHEMA_VERSION)
    try:
        subspaces = {
            int(layer): Subspace(
                **{part: tensors[f"{layer}.{part}"] for part in _PARTS},
                space=ActivationSpace(**space),
            )
            for layer, space in card["spaces"].items()
        }
        return PersonaVector(subspaces, str(card["method"]), float(card["coefficient"]), card)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} is a safetensors file but no persona vector ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error


def read_tensors_and_card(
    path: str | Path, wanted: str, schema_version: int, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one of our safetensors files, and its card.

    Raises: DataError when the file is missing, truncated, not of the dtype, or its card is of
        another format or version than wanted.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from error
    try:
        card = json.loads(metadata["card"])
        found, version_found = card["format"], card["schema_version"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is a safetensors file without a card of personascope") from error
    if found != wanted or version_found != schema_version:
        raise DataError(
            f"{path} is {shown(found)} version {shown(version_found, 20)}; "
            f"needed: {wanted} version {schema_version}"
        )
    for name, tensor in tensors.items():
        if tensor.dtype != dtype:
            needed = str(dtype).removeprefix("torch.")
            raise DataError(
                f"{path}: tensor {shown(name, 40)} is {tensor.dtype}; {needed} is needed"
            )
    return tensors, card


def read_format(path: str | Path) -> str:
    """What the card of a safetensors file calls its format, "" where it has no card of ours.

    Raises: DataError when the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            card = json.loads((file.metadata() or {}).get("card", "{}"))
    except (ValueError, RecursionError):
        return ""
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from error
    return str(card.get("format", "")) if isinstance(card, dict) else ""


def _reason(error: Exception) -> str:
    """What a person can do something with; the library speaks of the header of what is no file."""
    reason = " ".join(str(error).split())[:200]
    if isinstance(error, OSError) or "header" not in reason.lower():
        return reason
    return f"it is no safetensors file, or a damaged one ({reason})"

"""Vectors of Neuronpedia: the JSON that its API takes for a new vector, one block a file.

{"modelId", "layerNumber", "hookType", "vector", "vectorDefaultSteerStrength", "vectorLabel"};
hookType is "hook_resid_pre" or "hook_resid_post".
"""

from __future__ import annotations

import json
from pathlib import Path

from persona.data.jsonl import read_json
from persona.directions.exchange.foreign_values import (
    as_block,
    as_number,
    as_object,
    as_text,
    as_vector,
    naming,
)
from persona.directions.exchange.vectors import HOOKS, TOWARD_TRAIT, ResidualHook, VectorSet
from persona.errors import DataError, shown
from persona.files import atomic_write_text

_HOOK_TYPES: dict[str, ResidualHook] = {f"hook_{hook}": hook for hook in HOOKS}


def read_neuronpedia(path: str | Path) -> VectorSet:
    """The vector at the hook and block that the file names.

    facts: "label" and, where the file has it, "default_coefficient".

    Raises: DataError where the file is missing, damaged, or no such object.
    """
    with naming(path):
        content = as_object(read_json(path), "the file's content")
        needed = ("modelId", "layerNumber", "hookType", "vector", "vectorLabel")
        if missing := [key for key in needed if key not in content]:
            raise DataError(f'there is no "{missing[0]}"')
        hook_type = as_text(content["hookType"], "hookType")
        if hook_type not in _HOOK_TYPES:
            raise DataError(
                f"hookType must be {' or '.join(_HOOK_TYPES)}; got {shown(hook_type, 40)}"
            )
        label = as_text(content["vectorLabel"], "vectorLabel")
        facts: dict[str, str | float] = {"sign": TOWARD_TRAIT, "operation": "add", "label": label}
        if (default := content.get("vectorDefaultSteerStrength")) is not None:
            facts["default_coefficient"] = as_number(default, "vectorDefaultSteerStrength")
        return VectorSet(
            {as_block(content["layerNumber"]): as_vector(content["vector"], "vector")},
            _HOOK_TYPES[hook_type],
            as_text(content["modelId"], "modelId"),
            "neuronpedia",
            facts,
        )


def write_neuronpedia(
    vectors: VectorSet,
    path: str | Path,
    *,
    coefficient: float | None = None,
    label: str = "",
    model: str = "",
) -> Path:
    """Writes the JSON for one block, at the set's own hook; returns the path.

    coefficient: how much of the vector Neuronpedia adds unless told otherwise, default the set's
        `facts["default_coefficient"]`.
    label: default `facts["label"]`, else the method. model: Neuronpedia's id of the model, such as
        "gpt2-small"; default the set's own.

    Raises: DataError for more than one block, or where one of the three is not known.
    """
    placed = vectors.pointing(TOWARD_TRAIT)
    if len(placed.layers) != 1:
        raise DataError(
            f"this format holds one block and there are {len(placed.layers)}; choose one"
        )
    [(layer, vector)] = placed.vectors.items()
    default = vectors.facts.get("default_coefficient") if coefficient is None else coefficient
    content = {
        "modelId": model or vectors.model,
        "layerNumber": layer,
        "hookType": f"hook_{placed.hook}",
        "vector": vector.tolist(),
        "vectorDefaultSteerStrength": default,
        "vectorLabel": label or vectors.facts.get("label") or vectors.method,
    }
    for key, what in (
        ("modelId", "the model"),
        ("vectorDefaultSteerStrength", "the default coefficient"),
        ("vectorLabel", "a label"),
    ):
        if content[key] in (None, ""):
            raise DataError(f"a Neuronpedia vector names {what}, which is not known; give it")
    atomic_write_text(path, json.dumps(content, allow_nan=False))
    return Path(path)

"""What a run on a trait leaves behind: the verdict with its numbers, the vector, every answer."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.exchange import VectorSet, load_vector_set, save_vector_set
from persona.directions.exchange.vectors import TOWARD_TRAIT
from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text
from persona.models.pair import ModelPair
from persona.traits.comparing.kept_trait import (
    DIFFERENCES,
    RESULT,
    VECTOR_FILE,
    QuestionDifferences,
)
from persona.traits.kept_answers import mean_difference
from steering.traits.prove_trait import ProvedTrait
from steering.traits.trait_place import METHOD
from steering.traits.trait_session import TraitSession

ROWS = "rows.parquet"
SCHEMA_VERSION = 1
SOURCE = "Chen et al. 2025, Persona Vectors"
DIFFERS = (
    "questions come of everyday topics, not of the trait",
    "one judge of token probabilities; a local one says yes or no and is centred on the answers "
    "that the vector is made of",
    "the number of answers comes of a power calculation and the time there is",
    "block and coefficient at equal damage, on the making half alone",
    "a verdict, and controls: random directions, nonsense vectors, words, length, shuffled poles",
)


def trait_result(session: TraitSession, proved: ProvedTrait, seconds: float) -> dict[str, Any]:
    """Everything that is told of a trait, JSON-able; numbers that are undefined are null."""
    facts, place, made = proved.facts, proved.place, proved.made
    split = made.split_half()
    here = None if split is None or place is None else split.iloc[place.layer]
    found = {
        "schema_version": SCHEMA_VERSION,
        "trait": session.artefacts.description or session.artefacts.name,
        "verdict": asdict(proved.verdict),
        "model": session.pair.names["aligned"],
        "revision": session.pair.revisions["aligned"],
        "precision": session.pair.precision,
        "judge": session.judge.name,
        "judge_centre": getattr(session.judge, "centre", None),
        "seed": session.seed,
        "plan": {**asdict(proved.plan), "sentence": proved.plan.describe()},
        "pairs": {"asked": len(made.pairs), "kept": len(made.kept)},
        "place": None if place is None else asdict(place),
        "choice": proved.choice.to_dict("records"),
        "norm": None
        if place is None or made.vectors is None
        else float(made.vectors[place.layer].norm()),
        "split_half_cosine": None
        if here is None
        else {key: float(here[key]) for key in ("cosine", "low", "high", "n")},
        "facts": asdict(facts),
        "damage_ce_nats": {name: asdict(found) for name, found in proved.damage.items()},
        "coherence": dict(proved.coherence),
        "source": SOURCE,
        "differs": list(DIFFERS),
        "seconds": seconds,
    }
    return _finite(found)


def write_trait_files(
    out: Path, result: Mapping[str, Any], session: TraitSession, proved: ProvedTrait
) -> None:
    """Writes the vector where there is one, what it is the mean of, the rows, and last the result.

    A vector that was given is the mean of nothing here, so that no differences are kept beside it.
    """
    (out / DIFFERENCES).unlink(missing_ok=True)
    if proved.made.vectors is not None and proved.place is not None:
        save_vector_set(_vector_set(session.pair, proved, result), out / VECTOR_FILE)
        if torch.equal(proved.made.vectors, mean_difference(proved.made.read)):
            _differences(proved).save(out / DIFFERENCES)
    rows = pd.concat([proved.made.rows, proved.rows], ignore_index=True)
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    atomic_write_bytes(out / ROWS, buffer.getvalue())
    text = json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(out / RESULT, text + "\n")


def nonsense_vectors(
    folders: list[Path], pair: ModelPair
) -> dict[str, Float[Tensor, "layer d_model"]]:
    """Folder's name -> vector at every block of a finished run on a nonsense trait.

    Raises: DataError for a folder without a vector, or one of another model.
    """
    found = {}
    for folder in folders:
        path = folder / VECTOR_FILE
        if not path.exists():
            raise DataError(
                f"{folder} holds no {VECTOR_FILE}; --nonsense takes folders of finished runs of "
                "`persona trait` that made a vector"
            )
        kept = load_vector_set(path)
        there, here = kept.facts.get("revision"), pair.revisions["aligned"]
        if there != here or kept.layers != list(range(pair.n_layers)):
            raise DataError(
                f"{path} is of {kept.model} ({there}), but the run is of {pair.names['aligned']} "
                f"({here}); make it with this model"
            )
        found[folder.name] = torch.stack([kept.vectors[layer] for layer in kept.layers])
    return found


def given_vector(vectors: VectorSet, pair: ModelPair) -> Float[Tensor, "layer d_model"]:
    """A vector of a file at every block of a model, NaN where the file has none.

    Raises: DataError for another width, or a block that the model has not.
    """
    placed = vectors.at_resid_post().pointing(TOWARD_TRAIT)
    if placed.d_model != pair.d_model or placed.layers[-1] >= pair.n_layers:
        raise DataError(
            f"the vector has d_model={placed.d_model} and blocks up to {placed.layers[-1]}, but "
            f"{pair.names['aligned']} has d_model={pair.d_model} and {pair.n_layers} blocks; it is "
            "of another model"
        )
    found = torch.full((pair.n_layers, pair.d_model), math.nan)
    for layer, vector in placed.vectors.items():
        found[layer] = vector
    return found


def _vector_set(pair: ModelPair, proved: ProvedTrait, result: Mapping[str, Any]) -> VectorSet:
    assert proved.made.vectors is not None and proved.place is not None
    facts = {
        "sign": TOWARD_TRAIT,
        "operation": "add",
        "trait": result["trait"],
        "verdict": proved.verdict.name,
        "layer": proved.place.layer,
        "coefficient": proved.place.coefficient,
        "revision": pair.revisions["aligned"],
        "chat_template_hash": pair.chat.template_hash,
    }
    vectors = {
        layer: row.float()
        for layer, row in enumerate(proved.made.vectors)
        if bool(row.isfinite().all())
    }
    return VectorSet(vectors, "resid_post", pair.names["aligned"], METHOD, facts)


def _differences(proved: ProvedTrait) -> QuestionDifferences:
    read = proved.made.read
    questions = proved.made.kept["question_id"].astype(str).tolist()
    return QuestionDifferences.of_pairs(read["for"] - read["against"], questions)


def _finite(value: Any) -> Any:
    """The value with every number that is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

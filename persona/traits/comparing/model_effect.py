"""What a fine-tune did to the residual stream, as a diagnosis leaves it behind.

Fine-tuned less aligned model, mean over the tokens of the same good answers, at every block that
differs: what `persona traits compare --finetune` lays beside traits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.exchange.vector_set_file import load_vector_set, save_vector_set
from persona.directions.exchange.vectors import TOWARD_TRAIT, VectorSet
from persona.errors import DataError

if TYPE_CHECKING:
    from persona.models.pair import ModelPair

MODEL_EFFECT = "model_effect.safetensors"
METHOD = "model effect on good answers"


def write_model_effect(
    folder: str | Path, vectors: Float[Tensor, "layer d_model"], pair: ModelPair
) -> Path:
    """Writes it into the folder of a diagnosis; blocks at which nothing differs are left out.

    Raises: DataError where nothing differs anywhere.
    """
    moved = {layer: row.float() for layer, row in enumerate(vectors) if bool(row.any())}
    facts = {
        "sign": TOWARD_TRAIT,
        "operation": "add",
        "revision": pair.revisions["aligned"],
        "chat_template_hash": pair.chat.template_hash,
        "finetuned": pair.names["finetuned"],
        "n_layers": pair.n_layers,
    }
    found = VectorSet(moved, "resid_post", pair.names["aligned"], METHOD, facts)
    return save_vector_set(found, Path(folder) / MODEL_EFFECT)


def model_effect_of(folder: str | Path) -> tuple[Float[Tensor, "one layer d_model"], str]:
    """The shift in the folder of a diagnosis, as a single row, and the aligned model's revision.

    Blocks that the fine-tune left alone are 0.
    Raises: DataError where there is none: a folder of another kind, or of an earlier version.
    """
    path = Path(folder) / MODEL_EFFECT
    if not path.exists():
        raise DataError(
            f"{folder} holds no {MODEL_EFFECT}; name the folder of a finished `persona diagnose` "
            "(one of an earlier version has to be run anew)"
        )
    vectors = load_vector_set(path)
    n_layers = vectors.facts.get("n_layers")
    last = vectors.layers[-1]
    rows = n_layers if isinstance(n_layers, int) and n_layers > last else last + 1
    shift = torch.zeros(1, rows, vectors.d_model)
    for layer, vector in vectors.vectors.items():
        shift[0, layer] = vector
    return shift, str(vectors.facts.get("revision") or "")

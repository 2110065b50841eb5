"""Which answers a vector is made of, and the vector: the mean difference at every block.

Source: Chen et al. 2025, "Persona Vectors", section 2.2: pairs whose positive answer scores above
50 and whose negative one below, both coherent; the mean over the tokens of each answer, read behind
its instruction; the mean difference, norm kept.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.collect import collect_rows
from persona.behaviour.prompted import COHERENCE_AT_LEAST, TRAIT_AT_LEAST
from persona.data.types import Dialogue
from persona.directions.contrast import Contrast
from persona.models.pair import ModelPair
from persona.traits.asking import dialogue

KEYS = ["question_id", "draw"]


def trait_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """Answers for and against the trait to one question and draw, side by side.

    rows: of both poles, with answer, trait and maybe coherence. Columns: question_id, draw,
    question, and system, answer, trait, coherence with the endings _for and _against.
    """
    told = [c for c in ("system", "answer", "trait", "coherence") if c in rows]
    poles = {
        pole: rows[rows["pole"] == pole].set_index([*KEYS, "question"])[told].add_suffix(f"_{pole}")
        for pole in ("for", "against")
    }
    return poles["for"].join(poles["against"]).reset_index()


def show_the_contrast(pairs: pd.DataFrame) -> pd.Series:
    """Which pairs the judge tells apart: above 50 for the trait and below 50 against it."""
    return (pairs["trait_for"] > TRAIT_AT_LEAST) & (pairs["trait_against"] < TRAIT_AT_LEAST)


def are_coherent(pairs: pd.DataFrame) -> pd.Series:
    """Which pairs have two coherent answers, 50 or more."""
    least = np.fmin(pairs["coherence_for"], pairs["coherence_against"])
    known = pairs[["coherence_for", "coherence_against"]].notna().all(axis=1)
    return known & (least >= COHERENCE_AT_LEAST)


def read_pairs_of_answers(pair: ModelPair, kept: pd.DataFrame) -> dict[str, Tensor]:
    """`for` and `against`: [pair layer d_model], each answer read behind the instruction it had."""
    found = {}
    for pole in ("for", "against"):
        texts = zip(kept["question"], kept[f"system_{pole}"], kept[f"answer_{pole}"], strict=True)
        found[pole] = _read(pair, [dialogue(*one) for one in texts], f"Reading answers {pole}")
    return found


def read_without_instruction(
    pair: ModelPair, rows: pd.DataFrame
) -> Float[Tensor, "row layer d_model"]:
    """The answers behind their questions alone: no instruction is there to be read."""
    texts = zip(rows["question"], rows["answer"], strict=True)
    return _read(pair, [dialogue(q, "", a) for q, a in texts], "Reading without instructions")


def contrast_of(read: dict[str, Tensor], kept: pd.DataFrame) -> Contrast:
    """The kept answers as the two classes of a contrast, by question.

    Raises: DataError as `Contrast`.
    """
    questions = tuple(map(str, kept["question_id"]))
    return Contrast(read["for"], read["against"], questions, questions)


def mean_difference(read: dict[str, Tensor]) -> Float[Tensor, "layer d_model"]:
    """Mean of the answers for the trait less that of those against it, float32."""
    return (read["for"].double() - read["against"].double()).mean(0).float()


def shuffled_poles(
    read: dict[str, Tensor], n: int, seed: int = 0
) -> Float[Tensor, "draw layer d_model"]:
    """Vectors made as the true one, the poles of a random half of the pairs swapped.

    Exactly half: with a coin for each, what all pairs share is left in part, and at equal norm a
    clear trait's shuffled vectors are the true one or its opposite. Of an odd number of pairs one
    is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    differences = read["for"].double() - read["against"].double()
    half = len(differences) // 2
    order = torch.rand(n, len(differences), generator=generator).argsort(dim=1)
    signs = torch.zeros(n, len(differences), dtype=torch.float64)
    signs.scatter_(1, order[:, :half], 1.0)
    signs.scatter_(1, order[:, half : 2 * half], -1.0)
    return torch.einsum("np,pld->nld", signs / (2 * half), differences).float()


def _read(pair: ModelPair, dialogues: list[Dialogue], description: str) -> Tensor:
    with pair.active("aligned") as bridge:
        encoded = pair.chat.encode_all(dialogues)
        return collect_rows(bridge, encoded, range(pair.n_layers), description=description)

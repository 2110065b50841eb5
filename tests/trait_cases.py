"""Traits planted in numbers: a vector, noise by question, and the mean of both."""

from __future__ import annotations

import numpy as np
import torch

from persona.directions.exchange import VectorSet
from persona.traits.comparing import KeptTrait, QuestionDifferences


def unit(place: int, d_model: int, *, dense: bool = False) -> np.ndarray:
    """A coordinate axis, or a random direction of that seed."""
    if dense:
        drawn = np.random.default_rng(1000 + place).standard_normal(d_model)
        return drawn / np.linalg.norm(drawn)
    found = np.zeros(d_model)
    found[place % d_model] = 1.0
    return found


def planted_trait(
    name: str,
    vector: np.ndarray,
    *,
    noise: float = 0.1,
    n: int = 16,
    seed: int = 0,
    layer: int = 0,
    n_layers: int = 1,
    **facts: object,
) -> KeptTrait:
    """The same vector at every block; n questions, each with noise of its own a coordinate."""
    rng = np.random.default_rng(seed)
    rows = vector + noise * rng.standard_normal((n, n_layers, len(vector)))
    differences = QuestionDifferences(torch.from_numpy(rows).float(), torch.ones(n))
    mean = differences.rows.mean(0)
    vectors = VectorSet({at: mean[at] for at in range(n_layers)}, "resid_post", facts=facts)
    return KeptTrait(name, vectors, layer, "found", differences)

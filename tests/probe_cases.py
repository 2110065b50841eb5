"""Every probe with activations of its kind in which a direction is planted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from persona.directions import planted_contrast
from persona.models.space import ActivationSpace
from probes import estimators as e

N, LAYERS, D = 60, 3, 16

PROBES = {
    "difference_of_means": e.DifferenceOfMeansProbe(),
    "lda": e.LdaProbe(),
    "logistic": e.LogisticProbe(),
    "ridge": e.RidgeProbe(),
    "attention": e.AttentionPoolProbe(),
    "pooled_mean": e.PooledProbe("mean"),
    "pooled_max": e.PooledProbe("max"),
    "pooled_last": e.PooledProbe("last", e.LdaProbe()),
    "pooled_exponential": e.PooledProbe("exponential"),
    "layers_concatenated": e.MultiLayerProbe(),
    "layers_stacked": e.MultiLayerProbe("stack", e.RidgeProbe()),
}


@dataclass(frozen=True)
class Planted:
    """Rows of one kind, labels 0/1, the question of each row, and the planted unit direction."""

    rows: Any
    labels: np.ndarray
    groups: np.ndarray
    truth: np.ndarray

    def part(self, places: slice) -> Planted:
        return Planted(self.rows[places], self.labels[places], self.groups[places], self.truth)


def planted(
    reads: str, signal: float = 2.0, seed: int = 0, n: int = N, large: float = 1000.0
) -> Planted:
    """Two answers to each question; coordinate 3 is `large` times larger than the others."""
    contrast, truth = planted_contrast(n, LAYERS, D, signal, 1.0, seed=seed, question_effect=0.3)
    rows = np.concatenate([contrast.positive.numpy(), contrast.negative.numpy()]).astype(float)
    labels = np.repeat([1, 0], n)
    groups = np.array([*contrast.positive_questions, *contrast.negative_questions])
    direction = truth[:, 0].numpy().astype(float)
    rows[..., 3] *= large
    direction[..., 3] *= large
    order = np.random.default_rng(seed).permutation(2 * n)
    rows, labels, groups = rows[order], labels[order], groups[order]
    if reads == "layers":
        return Planted(rows, labels, groups, direction)
    rows, direction = rows[:, 0], direction[0]
    if reads == "tokens":
        rows = e.token_rows(tokens_around(rows, seed, large))
    return Planted(rows, labels, groups, direction)


def tokens_around(means: np.ndarray, seed: int, large: float) -> list[np.ndarray]:
    """Texts of 3 to 8 tokens, each the text's row and noise of its own."""
    rng = np.random.default_rng(seed)
    spread = 0.3 * np.where(np.arange(D) == 3, large, 1.0)
    return [mean + spread * rng.standard_normal((rng.integers(3, 9), D)) for mean in means]


def fitted(name: str, data: Planted) -> Any:
    probe = clone(PROBES[name])
    if "stack" in name:
        return probe.fit(data.rows, data.labels, groups=data.groups)
    return probe.fit(data.rows, data.labels)


def space(layer: int = 0, d_model: int = D, model: str = "tiny") -> ActivationSpace:
    return ActivationSpace(model, "r0", f"blocks.{layer}.hook_resid_post", layer, d_model)

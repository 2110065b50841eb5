"""Difference of means in the 2x2 of {aligned, fine-tuned model} x {good, bad answers}.

Every effect points toward bad or toward fine-tuned. Cells are [question layer d_model]: the mean
residual over one answer's tokens.

Source: the four cells are those of Soligo et al. 2025 ("Convergent Linear Representations of
Emergent Misalignment"), who use `answer_effect_finetuned`; differs: each answer weighs one,
where they pool over tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError

EFFECTS = (
    "answer_effect_aligned",
    "answer_effect_finetuned",
    "model_effect_good",
    "model_effect_bad",
    "interaction",
)


@dataclass(frozen=True)
class Cells:
    """Pooled activations of the four cells, question by question in one order.

    good, bad: which answer was read; aligned, finetuned: by which model.
    """

    aligned_good: Float[Tensor, "question layer d_model"]
    aligned_bad: Float[Tensor, "question layer d_model"]
    finetuned_good: Float[Tensor, "question layer d_model"]
    finetuned_bad: Float[Tensor, "question layer d_model"]

    def __post_init__(self) -> None:
        shapes = {tuple(cell.shape) for cell in vars(self).values()}
        if len(shapes) != 1:
            raise DataError(f"the four cells must have one shape; got {sorted(shapes)}")

    @property
    def n_questions(self) -> int:
        return len(self.aligned_good)

    def paired_differences(self) -> dict[str, Float[Tensor, "question layer d_model"]]:
        """The five effects of each question; their means over questions are the directions."""
        answer_aligned = self.aligned_bad - self.aligned_good
        answer_finetuned = self.finetuned_bad - self.finetuned_good
        return {
            "answer_effect_aligned": answer_aligned,
            "answer_effect_finetuned": answer_finetuned,
            "model_effect_good": self.finetuned_good - self.aligned_good,
            "model_effect_bad": self.finetuned_bad - self.aligned_bad,
            "interaction": answer_finetuned - answer_aligned,
        }


@dataclass(frozen=True)
class Effect:
    """One mean difference by layer, with how reliable it is.

    vectors: [layer d_model]. norms: [layer].
    split_half_cosine: [layer], mean cosine between the means of two random halves of the
        questions; low, high: 2.5 and 97.5 percentiles over the random splits.
    bootstrap_cosine: [layer 2], 2.5 and 97.5 percentiles of the cosine between the mean over
        resampled questions and the mean over all.
    """

    vectors: Float[Tensor, "layer d_model"]
    norms: Float[Tensor, " layer"]
    split_half_cosine: Float[Tensor, " layer"]
    split_half_low: Float[Tensor, " layer"]
    split_half_high: Float[Tensor, " layer"]
    bootstrap_cosine: Float[Tensor, "layer 2"]


def two_by_two(cells: Cells, *, seed: int = 0, n_splits: int = 50) -> Mapping[str, Effect]:
    """The five effects of the 2x2 with split-half and bootstrap cosines over questions.

    Raises: DataError below four questions, where halves say nothing.

    Examples:
        A fine-tune that moves every answer by 2 along coordinate 0, good and bad alike:

        >>> import torch
        >>> from persona.directions import Cells, two_by_two
        >>> good = torch.randn(20, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> bad = good + 1.0
        >>> moved = 2.0 * torch.eye(8)[0]
        >>> effects = two_by_two(Cells(good, bad, good + moved, bad + moved))
        >>> {name: round(float(effect.norms[0]), 2) for name, effect in effects.items()
        ...  if name.startswith(("model", "inter"))}
        {'model_effect_good': 2.0, 'model_effect_bad': 2.0, 'interaction': 0.0}
    """
    if cells.n_questions < 4:
        raise DataError(f"the 2x2 needs at least 4 questions; got {cells.n_questions}")
    return {
        name: mean_difference(rows, seed=seed, n_splits=n_splits)
        for name, rows in cells.paired_differences().items()
    }


def mean_difference(
    rows: Float[Tensor, "question layer d_model"], *, seed: int = 0, n_splits: int = 50
) -> Effect:
    """Mean over questions with its reliability; questions are split and resampled whole."""
    n = len(rows)
    wide = rows.double()
    mean_LD = wide.mean(0)
    rng = np.random.default_rng(seed)
    halves = np.zeros((n_splits, n))
    resamples = np.zeros((n_splits, n))
    for split in range(n_splits):
        halves[split, rng.permutation(n)[: n // 2]] = 1
        resamples[split] = np.bincount(rng.integers(0, n, n), minlength=n)
    first = _weighted_means(wide, halves)
    second = _weighted_means(wide, 1 - halves)
    split_cosines = torch.cosine_similarity(first, second, dim=-1)
    resampled = torch.cosine_similarity(_weighted_means(wide, resamples), mean_LD[None], dim=-1)
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = split_cosines.quantile(quantiles, dim=0)
    return Effect(
        vectors=mean_LD.float(),
        norms=mean_LD.norm(dim=-1).float(),
        split_half_cosine=split_cosines.mean(0).float(),
        split_half_low=low.float(),
        split_half_high=high.float(),
        bootstrap_cosine=resampled.quantile(quantiles, dim=0).T.float(),
    )


def _weighted_means(
    rows: Float[Tensor, "question layer d_model"], weights: np.ndarray
) -> Float[Tensor, "draw layer d_model"]:
    normalised = torch.tensor(weights / weights.sum(1, keepdims=True))
    return torch.einsum("sq,qld->sld", normalised, rows)

"""Difference of means in the 2x2 of {aligned, fine-tuned model} x {good, bad answers}.

Every effect points toward bad or toward fine-tuned. Cells are [question layer d_model]: the mean
residual over one answer's tokens.

Source: the four cells are those of Soligo et al. 2025 ("Convergent Linear Representations of
Emergent Misalignment"), who use `answer_effect_finetuned`; differs: each answer weighs one,
where they pool over tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import Direction
from persona.errors import DataError
from persona.models.space import ActivationSpace

CellName = Literal["aligned_good", "aligned_bad", "finetuned_good", "finetuned_bad"]
EFFECTS = (
    "answer_effect_aligned",
    "answer_effect_finetuned",
    "model_effect_good",
    "model_effect_bad",
    "interaction",
)
EFFECT_CELLS: Mapping[str, tuple[CellName, CellName]] = {
    "answer_effect_aligned": ("aligned_bad", "aligned_good"),
    "answer_effect_finetuned": ("finetuned_bad", "finetuned_good"),
    "model_effect_good": ("finetuned_good", "aligned_good"),
    "model_effect_bad": ("finetuned_bad", "aligned_bad"),
}
"""Effect -> the two cells whose difference it is, the one it points toward first. The interaction
is of all four."""


@dataclass(frozen=True)
class Cells:
    """Pooled activations of the four cells, question by question in one order.

    good, bad: which answer was read; aligned, finetuned: by which model.
    spaces: where each row of the layer axis was read; empty for numbers made by hand.
    Raises: DataError for cells of different shapes, or spaces of another number than the layers.
    """

    aligned_good: Float[Tensor, "question layer d_model"]
    aligned_bad: Float[Tensor, "question layer d_model"]
    finetuned_good: Float[Tensor, "question layer d_model"]
    finetuned_bad: Float[Tensor, "question layer d_model"]
    spaces: tuple[ActivationSpace, ...] = ()

    def __post_init__(self) -> None:
        shapes = {tuple(cell.shape) for cell in self.tensors().values()}
        if len(shapes) != 1:
            raise DataError(f"the four cells must have one shape; got {sorted(shapes)}")
        _require_one_space_a_layer(self.spaces, self.aligned_good.shape[1])

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], spaces: Sequence[ActivationSpace] = ()) -> Cells:
        """The cells that `tensors` names, as a stage gives them back."""
        return cls(
            tensors["aligned_good"],
            tensors["aligned_bad"],
            tensors["finetuned_good"],
            tensors["finetuned_bad"],
            tuple(spaces),
        )

    @property
    def n_questions(self) -> int:
        return len(self.aligned_good)

    def tensors(self) -> dict[str, Float[Tensor, "question layer d_model"]]:
        """The four cells by name, as a stage keeps them."""
        return {
            "aligned_good": self.aligned_good,
            "aligned_bad": self.aligned_bad,
            "finetuned_good": self.finetuned_good,
            "finetuned_bad": self.finetuned_bad,
        }

    def at_questions(self, chosen: slice) -> Cells:
        """The same cells of some of the questions."""
        return self.of({k: cell[chosen] for k, cell in self.tensors().items()}, self.spaces)

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
    name: which effect it is. spaces: where each row was read; empty where that is not known.
    """

    vectors: Float[Tensor, "layer d_model"]
    norms: Float[Tensor, " layer"]
    split_half_cosine: Float[Tensor, " layer"]
    split_half_low: Float[Tensor, " layer"]
    split_half_high: Float[Tensor, " layer"]
    bootstrap_cosine: Float[Tensor, "layer 2"]
    name: str = "mean_difference"
    spaces: tuple[ActivationSpace, ...] = ()

    def direction(self, layer: int) -> Direction:
        """The mean difference at one block, as a direction of the space it was read in.

        layer: 0-based block; not the row, where only some blocks were read.
        Raises: DataError where it was not read at that block, is zero there, or comes from
        numbers that do not say where they were read.
        """
        if not self.spaces:
            raise DataError(
                f"{self.name} does not know where it was read: make its cells with collect_cells, "
                "or give the Cells their spaces"
            )
        rows = {space.layer: row for row, space in enumerate(self.spaces)}
        if layer not in rows:
            raise DataError(f"{self.name} was read at blocks {sorted(rows)}, not at {layer}")
        row = rows[layer]
        return Direction(self.vectors[row], self.spaces[row], self.name)


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
        name: mean_difference(rows, seed=seed, n_splits=n_splits, name=name, spaces=cells.spaces)
        for name, rows in cells.paired_differences().items()
    }


def mean_difference(
    rows: Float[Tensor, "question layer d_model"],
    *,
    seed: int = 0,
    n_splits: int = 50,
    name: str = "mean_difference",
    spaces: Sequence[ActivationSpace] = (),
) -> Effect:
    """Mean over questions with its reliability; questions are split and resampled whole.

    name, spaces: of the effect, for the directions made of it.
    Raises: DataError for spaces of another number than the layers.
    """
    _require_one_space_a_layer(spaces, rows.shape[1])
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
        name=name,
        spaces=tuple(spaces),
    )


def _require_one_space_a_layer(spaces: Sequence[ActivationSpace], n_layers: int) -> None:
    if spaces and len(spaces) != n_layers:
        raise DataError(f"{n_layers} layers were read, but {len(spaces)} spaces are given")


def _weighted_means(
    rows: Float[Tensor, "question layer d_model"], weights: np.ndarray
) -> Float[Tensor, "draw layer d_model"]:
    normalised = torch.tensor(weights / weights.sum(1, keepdims=True))
    return torch.einsum("sq,qld->sld", normalised, rows)

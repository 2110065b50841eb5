"""Sums that merge: means and variances of activations in memory that does not grow with texts.

Shapes: L layers, D d_model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of squares of vectors, in float64.

    Two disjoint sets of texts merge with `+`; any order and grouping gives the same moments up
    to float64 rounding.
    """

    count: int
    total_LD: Float[Tensor, "layer d_model"]
    squares_LD: Float[Tensor, "layer d_model"]

    @classmethod
    def of(cls, pooled: Float[Tensor, "row layer d_model"]) -> Moments:
        """Moments of a batch of vectors, one row each."""
        wide = pooled.detach().to("cpu", torch.float64)
        return cls(len(wide), wide.sum(0), wide.square().sum(0))

    def __add__(self, other: Moments) -> Moments:
        if self.total_LD.shape != other.total_LD.shape:
            raise DataError(
                f"moments of shape {tuple(self.total_LD.shape)} and {tuple(other.total_LD.shape)} "
                "do not merge: they come from different layers or models"
            )
        return Moments(
            self.count + other.count,
            self.total_LD + other.total_LD,
            self.squares_LD + other.squares_LD,
        )

    @property
    def mean_LD(self) -> Float[Tensor, "layer d_model"]:
        """Mean vector by layer, float64. Raises: DataError for an empty set."""
        if self.count == 0:
            raise DataError("the mean of no texts is undefined")
        return self.total_LD / self.count

    @property
    def variance_LD(self) -> Float[Tensor, "layer d_model"]:
        """Unbiased variance by layer and coordinate. Raises: DataError below two texts."""
        if self.count < 2:
            raise DataError(f"a variance needs at least two texts; got {self.count}")
        centred = self.squares_LD - self.total_LD.square() / self.count
        return centred.clamp(min=0) / (self.count - 1)

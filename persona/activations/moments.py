"""Sums that merge: means and variances of activations in memory that does not grow with texts.

Shapes: L layers, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError


@dataclass(frozen=True)
class Moments:
    """Count, centre and squared deviations from it, of vectors, in float64.

    centre_LD: the mean; 0 for no vectors. squares_LD: sum of (vector - mean)^2.
    Two disjoint sets of texts merge with `+`; any order and grouping gives the same moments up
    to float64 rounding.

    Source: Chan, Golub, LeVeque 1983, Algorithms for computing the sample variance, eq. 2.1. A sum
    of squares would lose the variance of coordinates whose mean is thousands of times as large.
    """

    count: int
    centre_LD: Float[Tensor, "layer d_model"]
    squares_LD: Float[Tensor, "layer d_model"]

    @classmethod
    def of(cls, pooled: Float[Tensor, "row layer d_model"]) -> Moments:
        """Moments of a batch of vectors, one row each."""
        wide = pooled.detach().to("cpu", torch.float64)
        centre = wide.mean(0) if len(wide) else torch.zeros(wide.shape[1:], dtype=torch.float64)
        return cls(len(wide), centre, (wide - centre).square().sum(0))

    @classmethod
    def none(cls, n_layers: int, d_model: int) -> Moments:
        """Moments of no vectors: what a sum starts from."""
        return cls.of(torch.empty(0, n_layers, d_model))

    def __add__(self, other: Moments) -> Moments:
        if self.centre_LD.shape != other.centre_LD.shape:
            raise DataError(
                f"moments of shape {tuple(self.centre_LD.shape)} and "
                f"{tuple(other.centre_LD.shape)} do not merge: they come from different layers or "
                "models"
            )
        count = self.count + other.count
        if not count:
            return self
        share = other.count / count
        step_LD = other.centre_LD - self.centre_LD
        return Moments(
            count,
            self.centre_LD + share * step_LD,
            self.squares_LD + other.squares_LD + self.count * share * step_LD.square(),
        )

    @property
    def mean_LD(self) -> Float[Tensor, "layer d_model"]:
        """Mean vector by layer, float64. Raises: DataError for an empty set."""
        if self.count == 0:
            raise DataError("the mean of no texts is undefined")
        return self.centre_LD

    @property
    def variance_LD(self) -> Float[Tensor, "layer d_model"]:
        """Unbiased variance by layer and coordinate. Raises: DataError below two texts."""
        if self.count < 2:
            raise DataError(f"a variance needs at least two texts; got {self.count}")
        return self.squares_LD / (self.count - 1)


def merge_in_tree(parts: Iterable[Moments]) -> Moments:
    """All moments in one: neighbours are merged in pairs, then the pairs, and so on.

    The order of `parts` alone decides the result, to the bit. Rounding grows with the depth of the
    tree, and no more than that many moments are held at a time.
    Raises: DataError for no parts.
    """
    merged: list[tuple[int, Moments]] = []  # height of a whole subtree, its moments
    for part in parts:
        merged.append((0, part))
        while len(merged) > 1 and merged[-1][0] == merged[-2][0]:
            (height, left), (_, right) = merged[-2:]
            merged[-2:] = [(height + 1, left + right)]
    if not merged:
        raise DataError("there are no moments to merge")
    result = merged.pop()[1]
    while merged:
        result = merged.pop()[1] + result
    return result

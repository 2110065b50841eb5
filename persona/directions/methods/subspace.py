"""Persona subspaces: the mean difference, and how the effect varies from question to question."""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.directions.methods.algebra import (
    RESOLUTION,
    class_difference,
    leading_rows,
    require_positive_rank,
    toward,
    typical_norm,
    unit_rows,
)
from persona.errors import DataError


def persona_subspace(contrast: Contrast, *, rank: int = 2) -> Float[Tensor, "layer rank d_model"]:
    """The mean difference, then the leading directions of the paired differences outside of it.

    Row 0 is (mu+ - mu-) / |mu+ - mu-|; the others are the top right singular vectors of the paired
    differences with their part along row 0 taken away. What is left has mean zero, so their sign
    is a convention (largest entry positive). Rank 1 needs no pairs.
    Raises: DataError without pairs, fewer pairs than `rank`, or when they span fewer directions.
    """
    require_positive_rank(rank)
    mean = class_difference(contrast)
    first = unit_rows(mean)
    if rank == 1:
        return first
    differences = contrast.pairs().double()
    if len(differences) < rank:
        raise DataError(
            f"persona_subspace of rank {rank} needs {rank} pairs; got {len(differences)}"
        )
    unit = mean / mean.norm(dim=-1, keepdim=True)
    along = einsum(differences, unit, "question layer d, layer d -> question layer")
    outside = differences - along[..., None] * unit
    rest = leading_rows(
        rearrange(outside, "question layer d -> layer question d"),
        rank - 1,
        RESOLUTION * typical_norm(contrast),
    )
    return torch.cat([first, toward(rest, mean).float()], dim=1)

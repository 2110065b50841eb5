"""Difference of means: the default for steering and for reading."""

from __future__ import annotations

from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.directions.methods.algebra import (
    class_difference,
    require_rank_one,
    require_separation,
    unit_rows,
)
from persona.errors import DataError

Weighting = Literal["answer", "token"]


def difference_of_means(
    contrast: Contrast, *, rank: int = 1, weighting: Weighting = "answer"
) -> Float[Tensor, "layer rank d_model"]:
    """mean(positive) - mean(negative) at length 1; it points toward positive.

    weighting: "answer": each answer weighs one. "token": each token weighs one, so that a long
        answer counts more; needs the token counts of both classes.
    Raises: DataError for another rank than 1, missing token counts, or equal means.

    Source: Chen et al. 2025 ("Persona Vectors"), per answer; Soligo et al. 2025 pool tokens.
    differs: unit length; the norm stays with `two_by_two`.

    Examples:
        >>> from persona.directions import planted_contrast
        >>> from persona.directions.methods import difference_of_means
        >>> contrast, truth = planted_contrast(200, 1, 16, signal=3.0, noise=1.0)
        >>> found = difference_of_means(contrast)
        >>> bool((found[0, 0] @ truth[0, 0]) > 0.95)
        True
    """
    require_rank_one(rank, "difference_of_means")
    if weighting == "answer":
        return unit_rows(class_difference(contrast))
    if weighting != "token":
        raise DataError(f"weighting must be 'answer' or 'token'; got {weighting!r}")
    if contrast.positive_tokens is None or contrast.negative_tokens is None:
        raise DataError(
            "weighting by token needs the token counts of both classes: give positive_tokens and "
            "negative_tokens, or weigh by answer"
        )
    difference = _token_mean(contrast.positive, contrast.positive_tokens) - _token_mean(
        contrast.negative, contrast.negative_tokens
    )
    require_separation(difference, contrast)
    return unit_rows(difference)


def _token_mean(rows: Tensor, tokens: Tensor) -> Float[Tensor, "layer d_model"]:
    share = tokens.double() / tokens.sum()
    return einsum(share, rows.to(torch.float64), "answer, answer layer d_model -> layer d_model")

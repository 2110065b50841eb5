"""Leading directions of paired differences: not centred, which is the one to use, and centred."""

from __future__ import annotations

from einops import rearrange
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
)
from persona.errors import DataError


def paired_pca(contrast: Contrast, *, rank: int = 1) -> Float[Tensor, "layer rank d_model"]:
    """Top right singular vectors of positive minus negative, question by question, NOT centred.

    The mean shift is kept, so the first row is near the mean difference where the shift is larger
    than the spread about it. Needs pairs.
    Raises: DataError without pairs, or when they span fewer than `rank` directions.

    Source: Zou et al. 2023 ("Representation Engineering"), who take the first component of
    differences. differs: not centred, signed by the mean difference.
    """
    require_positive_rank(rank)
    differences = contrast.pairs()
    _require_pairs(len(differences), rank, "paired_pca")
    floor = RESOLUTION * typical_norm(contrast)
    rows = leading_rows(rearrange(differences, "question layer d -> layer question d"), rank, floor)
    return toward(rows, class_difference(contrast)).float()


def paired_pca_centred(contrast: Contrast, *, rank: int = 1) -> Float[Tensor, "layer rank d_model"]:
    """The same after the mean difference is taken away: how the effect varies, NOT its direction.

    This is what PCA of differences means in most libraries, which centre by themselves. It drops
    the mean shift: |cos| with the true one was at most 0.013 where the difference of means had
    0.905 or more. It is here to be compared with. Needs pairs, one more than `rank`.
    Raises: DataError without pairs, or when they span fewer than `rank` directions.
    """
    require_positive_rank(rank)
    differences = contrast.pairs().double()
    _require_pairs(len(differences), rank + 1, "paired_pca_centred")
    centred = rearrange(differences - differences.mean(0), "question layer d -> layer question d")
    rows = leading_rows(centred, rank, RESOLUTION * typical_norm(contrast))
    return toward(rows, class_difference(contrast)).float()


def _require_pairs(n_pairs: int, needed: int, method: str) -> None:
    if n_pairs < needed:
        raise DataError(f"{method} needs at least {needed} pairs for this rank; got {n_pairs}")

"""Coefficients of a probe as directions of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from persona.directions.direction import Direction
from persona.errors import SpaceMismatchError
from persona.models.space import ActivationSpace
from probes.estimators.validation import RowsError


def direction_of(
    coef: NDArray[np.float64],
    mean_difference: NDArray[np.float64],
    space: ActivationSpace,
    method: str,
) -> Direction:
    """A coefficient as a direction toward the trait, in residual-stream units.

    vector = (u . difference) u with u = coef / |coef|: added once, it moves the mean projection of
    the rows without the trait onto that of the rows with it. A coefficient itself has the inverse
    unit, log-odds per unit of the residual stream, so its length says nothing to steering.
    Raises: SpaceMismatchError for a space of another width; DataError for a direction of length 0.
    """
    if coef.shape != (space.d_model,):
        raise SpaceMismatchError(
            f"the probe reads d_model={len(coef)} but {space.hook_name} of {space.model} has "
            f"d_model={space.d_model}. Fit it on rows of this model, or load the model it came from"
        )
    unit = coef / (np.linalg.norm(coef) or 1.0)
    vector = (unit @ mean_difference) * unit
    return Direction(torch.from_numpy(vector).float(), space, method)


def directions_of(
    coef: NDArray[np.float64],
    mean_difference: NDArray[np.float64],
    spaces: Sequence[ActivationSpace],
    method: str,
) -> tuple[Direction, ...]:
    """One direction for each of the [view d_model] coefficients; see `direction_of`.

    Raises: RowsError for another number of spaces than of views.
    """
    if len(spaces) != len(coef):
        raise RowsError(f"the probe reads {len(coef)} layers or views; got {len(spaces)} spaces")
    parts = zip(coef, mean_difference, spaces, strict=True)
    return tuple(direction_of(row, mean, space, method) for row, mean, space in parts)

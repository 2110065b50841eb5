"""The assistant axis: where the default assistant lies against characters it can play."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError


def default_minus_roles(
    default_rows: Float[Tensor, "answer layer d_model"],
    role_rows: Mapping[str, Float[Tensor, "_ layer d_model"]],
) -> Float[Tensor, "layer d_model"]:
    """mean(default) - mean over roles of each role's mean, in residual-stream units.

    It points toward the default assistant; personas lie on the OTHER side, so negate it for a
    direction toward the trait. Each role weighs one, however many answers it has.
    Raises: DataError without roles, for an empty or non-finite set of rows, or other widths.

    Source: Lu et al. 2026 ("The Assistant Axis").
    """
    if not role_rows:
        raise DataError("the assistant axis needs the activations of at least one role")
    for name, rows in {"the default assistant": default_rows, **role_rows}.items():
        if len(rows) == 0 or not rows.isfinite().all():
            raise DataError(f"the activations of {name!r} are empty or not finite")
        if rows.shape[1:] != default_rows.shape[1:]:
            raise DataError(
                f"the activations of {name!r} have [layer d_model] = {list(rows.shape[1:])} but "
                f"those of the default assistant {list(default_rows.shape[1:])}; read both from "
                "the same layers of one model"
            )
    roles = torch.stack([rows.mean(0, dtype=torch.float64) for rows in role_rows.values()])
    return (default_rows.mean(0, dtype=torch.float64) - roles.mean(0)).float()

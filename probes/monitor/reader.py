"""What is monitored: one linear reading of the residual stream at one block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import Direction
from persona.errors import DataError, SpaceMismatchError
from persona.models.space import ActivationSpace
from probes.fitting import FittedProbe


@dataclass(frozen=True)
class Reader:
    """projection = x . unit; score = x . coef + intercept.

    Of a probe the score is the log-odds of a text that is this one token; of a direction it is the
    projection again. Above: toward the trait.
    """

    unit: Float[Tensor, " d_model"]
    coef: Float[Tensor, " d_model"]
    intercept: float
    layer: int
    space: ActivationSpace | None = None

    def read(
        self, resid: Float[Tensor, "*batch d_model"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Projection and score of each residual vector, float64 on the CPU.

        Raises: SpaceMismatchError for another width.
        """
        if resid.shape[-1] != len(self.unit):
            raise SpaceMismatchError(
                f"the probe reads d_model={len(self.unit)} but this model has "
                f"d_model={resid.shape[-1]}. Load the model that the probe was fitted on"
            )
        wide = resid.detach().cpu().double()
        return wide @ self.unit, wide @ self.coef + self.intercept


def reader_of(monitored: Any, layer: int | None = None) -> Reader:
    """The reading of a FittedProbe, a Direction, or a fitted linear or token probe.

    layer: 0-based block; may be left out where the probe or direction knows its own.
    Raises: DataError for a probe of several layers, one without coef_, or a layer not known;
    SpaceMismatchError for another layer than its own.
    """
    space = None
    if isinstance(monitored, Direction):
        space, unit = monitored.space, monitored.unit.double()
        coef, intercept = unit, 0.0
    else:
        probe = monitored
        if isinstance(monitored, FittedProbe):
            probe = monitored.probe
            space = monitored.spaces[0] if len(monitored.spaces) == 1 else None
        weights = getattr(probe, "coef_", None)
        if weights is None or weights.ndim != 1:
            raise DataError(
                f"{type(probe).__name__} has no single raw-space coefficient to read tokens with; "
                "monitor a fitted linear or token probe of one layer, or a Direction"
            )
        coef, intercept = torch.from_numpy(weights).double(), float(probe.intercept_)
        unit = coef / coef.norm()
    if layer is None and space is None:
        raise DataError("a bare estimator does not know its layer: pass layer, its 0-based block")
    if layer is not None and space is not None and layer != space.layer:
        raise SpaceMismatchError(
            f"the probe reads {space.hook_name}; layer {layer} was asked for. Fit one at that "
            "layer, or leave layer out"
        )
    at = space.layer if space is not None else layer
    assert at is not None  # one of the two is known
    return Reader(unit, coef, intercept, at, space)

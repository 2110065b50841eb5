"""Directions of the residual stream in words: which tokens they make likelier.

A lens takes a row of the residual stream at the output of a block to logits, linearly, so that the
logits of a mean difference are the mean of the logits of its texts. What a row adds is told up to
one positive factor for all rows: the size of the stream that the final norm divides by.

Shapes: R rows, D d_model, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from persona.models.hooks import hf_model, model_device
from persona.models.readout import Readout
from persona.models.sites import residual_readers

LARGE = 1e3
"""So far from 0 is a row put through the norm that what keeps the norm from dividing by 0 is
nothing beside it."""
CENTRES = 1e-3
"""A norm that takes a constant row to less than this share of another one subtracts the mean."""


@runtime_checkable
class Lens(Protocol):
    """A linear way from the residual stream after a block to logits.

    name: what it is called in tables.
    """

    @property
    def name(self) -> str: ...

    def logits(
        self, rows: Float[Tensor, "row d_model"], layer: int
    ) -> Float[Tensor, "row vocabulary"]:
        """What each row at the output of block `layer` adds to the logits, less its mean over the
        vocabulary; float32 on the CPU."""
        ...


@dataclass(frozen=True)
class LogitLens:
    """Reads a row as if it stood before the final norm.

    Source: nostalgebraist 2020 (logit lens). differs: the norm's weights are applied and its bias
    is not, and the row is not divided by its own size, so that the lens is linear.

    directions: [V D], what each token's logit is the product of a row with.
    """

    directions: Float[Tensor, "vocabulary d_model"]
    name: str = "logit lens"

    @classmethod
    def of(cls, model: Any) -> LogitLens:
        """The lens of a bridge or a plain Hugging Face model, as it stands.

        Raises: ModelError without a final norm or an LM head that are known here.
        """
        return cls(token_directions(model))

    def logits(
        self, rows: Float[Tensor, "row d_model"], layer: int
    ) -> Float[Tensor, "row vocabulary"]:
        return rows.float() @ self.directions.T


@torch.no_grad()
def token_directions(model: Any) -> Float[Tensor, "vocabulary d_model"]:
    """By token: the direction before the final norm that its logit grows along, float32.

    The mean over the vocabulary is taken away: what raises all logits alike raises no token.
    """
    head = Readout.of(model).head
    norm = residual_readers(model)[-1]
    device, dtype = model_device(model), next(hf_model(model).parameters()).dtype
    d_model = int(hf_model(model).config.get_text_config().hidden_size)
    rows = torch.eye(d_model, device=device)
    normed = _linear_norm(norm, rows, dtype)
    zero = torch.zeros(1, d_model, device=device, dtype=dtype)
    raised = head(normed.to(dtype)[None])[0].float() - head(zero[None])[0].float()
    found: Tensor = raised.T.contiguous()
    return (found - found.mean(0, keepdim=True)).cpu()


def _linear_norm(
    norm: Any, rows: Float[Tensor, "row d_model"], dtype: torch.dtype
) -> Float[Tensor, "row d_model"]:
    """A norm without the division: rows centred where it centres them, times its weights."""

    def directed(x: Tensor) -> Tensor:
        x = x.to(dtype)[None]
        return (norm(x)[0] - norm(torch.zeros_like(x))[0]).float()

    constant, alternating = torch.ones_like(rows[:1]), torch.ones_like(rows[:1])
    alternating[:, ::2] = -1
    whole = float(directed(LARGE * alternating).abs().max())
    centres = float(directed(LARGE * constant).abs().max()) < CENTRES * whole
    sizes = rows - rows.mean(-1, keepdim=True) if centres else rows
    size = sizes.pow(2).mean(-1, keepdim=True).sqrt()
    return directed(LARGE * rows / size) * size

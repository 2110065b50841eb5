"""Which tokens an intervention writes to, known once per forward pass.

A tracker watches the calls of the Hugging Face model under the bridge, so it sees prefill,
cached decoding, and the attention mask of padded batches, whoever started the pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from persona.errors import SteeringError

POSITION_SETS = ("all", "prompt", "response", "last")


class PositionTracker:
    """Holds the mask [batch pos] of the tokens to edit in the forward pass now running.

    positions: "all"; "prompt" (before the answer); "response" (the answer, and the last prompt
        token, from which its first token is predicted); "last" (the last token of each pass).
    response_start: row -> index of the answer's first token, counted in the row's own tokens.
        Without it, a prefill is all prompt and what is decoded after it is the response.
    first_token: also edit the first token of the text. Its residual is a massive activation;
        editing it is what wrecks models.
    """

    def __init__(
        self,
        positions: str = "all",
        response_start: Sequence[int] | None = None,
        first_token: bool = False,
    ) -> None:
        if positions not in POSITION_SETS:
            raise SteeringError(
                f"positions must be one of {', '.join(POSITION_SETS)}; got {positions!r}"
            )
        self.positions = positions
        self.response_start = None if response_start is None else torch.tensor(response_start)
        self.first_token = first_token
        self.mask: Tensor | None = None
        self.n_tokens = 0

    @contextlib.contextmanager
    def watching(self, hf_model: Any) -> Iterator[None]:
        """Recompute the mask at every forward pass of `hf_model` while open."""
        handle = hf_model.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self.mask = None

    def _before_forward(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        batch, width = tokens.shape[:2]
        past = _cached_length(kwargs.get("past_key_values"))
        attention = kwargs.get("attention_mask")
        if attention is None:
            real = torch.ones(batch, past + width, dtype=torch.bool, device=tokens.device)
        elif attention.ndim == 2:
            real = attention.bool().to(tokens.device)
        else:
            raise SteeringError(
                f"steering needs a [batch, pos] attention mask; got shape {tuple(attention.shape)}"
            )
        index = (real.long().cumsum(-1) - 1)[:, -width:]
        real = real[:, -width:]
        mask = real & (self._selected(index, real, prefill=past == 0))
        if not self.first_token:
            mask &= index > 0
        self.mask = mask
        self.n_tokens = int(mask.sum())

    def _selected(self, index: Tensor, real: Tensor, *, prefill: bool) -> Tensor:
        if self.positions == "all":
            return torch.ones_like(real)
        last = index == torch.where(real, index, -1).max(dim=-1, keepdim=True).values
        if self.positions == "last":
            return last
        if self.response_start is None:
            response = last if prefill else torch.ones_like(real)
        else:
            if len(self.response_start) != len(index):
                raise SteeringError(
                    f"response_start has {len(self.response_start)} rows but the batch has "
                    f"{len(index)}"
                )
            response = index >= self.response_start.to(index)[:, None] - 1
        return response if self.positions == "response" else ~response


def _cached_length(cache: Any) -> int:
    return 0 if cache is None else int(cache.get_seq_length())

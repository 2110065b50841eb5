"""Log-probabilities of some tokens as the next one behind a text, made where the head is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from persona.vllm.running_pass import Span
from persona.vllm.scored_tokens import ROWS_AT_ONCE


class NextTokens:
    """lengths: request -> tokens of its text, behind whose last one `tokens` are weighed."""

    def __init__(self, lengths: Mapping[int, int], tokens: Sequence[int]) -> None:
        self.lengths, self.tokens = lengths, list(tokens)
        self._found: dict[int, Tensor] = {}

    def see(self, hidden: Tensor, spans: Sequence[Span], logits: Callable[[Tensor], Any]) -> None:
        """Take the texts that end in a pass. hidden: what the head is given [token d_model].

        Every card of a stage calls the head, as in `ScoredTokens`.
        """
        ends = {
            int(span.told["request"]): span.end - 1
            for span in spans
            if span.first + len(span) == self.lengths.get(span.told.get("request", -1))
        }
        requests = list(ends)
        for start in range(0, len(requests), ROWS_AT_ONCE):
            some = requests[start : start + ROWS_AT_ONCE]
            rows = torch.tensor([ends[request] for request in some], device=hidden.device)
            table = logits(hidden[rows])
            if table is None:
                continue
            scores = table.float().log_softmax(-1)[:, self.tokens].cpu()
            self._found |= dict(zip(some, scores, strict=True))

    def scored(self) -> dict[int, Tensor]:
        """Request -> log-probability of each of the tokens, nats, float32."""
        return self._found

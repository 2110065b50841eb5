"""Log-probabilities of the tokens that stand in a text, made in the worker, where its head is.

vLLM's own prompt log-probabilities fail beside a LoRA adapter on a CPU (0.30.0), and come back as
an object for each token. Only one number a token leaves the worker here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from persona.errors import EngineError
from persona.vllm.running_pass import Span

ROWS_AT_ONCE = 256
"""Tokens whose logits are held together: as many times the vocabulary."""


class ScoredTokens:
    """texts: request -> its tokens, of which all but the first are scored."""

    def __init__(self, texts: Mapping[int, Sequence[int]]) -> None:
        self.texts = texts
        self._found: dict[int, Tensor] = {}

    def see(self, hidden: Tensor, spans: Sequence[Span], logits: Callable[[Tensor], Any]) -> None:
        """Take the scores out of a pass. hidden: what the head is given [token d_model].

        Every card of a stage calls the head, since it may need all; one of them is given logits.
        """
        for span in spans:
            if span.told.get("request") not in self.texts:
                continue
            request = int(span.told["request"])
            text = self.texts[request]
            targets = torch.tensor(list(text[span.first + 1 : span.first + len(span) + 1]))
            for start in range(0, len(targets), ROWS_AT_ONCE):
                these = targets[start : start + ROWS_AT_ONCE].to(hidden.device)
                first = span.start + start
                table = logits(hidden[first : first + len(these)])
                if table is None:
                    continue
                scores = table.float().log_softmax(-1).gather(1, these[:, None])[:, 0]
                kept = self._found.setdefault(request, torch.full((len(text) - 1,), torch.nan))
                kept[span.first + start : span.first + start + len(these)] = scores.cpu()

    def scored(self) -> dict[int, Tensor]:
        """Request -> log-probability of each token but the first, nats, float32."""
        return self._found


def head_of(model: nn.Module) -> Callable[[Tensor], Any]:
    """What the model's head makes of hidden states, without an adapter on it.

    Raises: EngineError for a model of vLLM's without such a head.
    """
    processor: Any = getattr(model, "logits_processor", None)
    if processor is None or not hasattr(processor, "base_layer"):
        if not hasattr(model, "compute_logits"):
            raise EngineError(f"{type(model).__name__} in vLLM gives no logits")
        return model.compute_logits  # type: ignore[return-value]
    head: Any = model.lm_head
    base, plain = processor.base_layer, getattr(head, "base_layer", head)
    return lambda hidden: base(plain, hidden)

"""Log-probabilities of the tokens that stand in a text, made in the worker, where its head is.

vLLM's own prompt log-probabilities fail beside a LoRA adapter on a CPU (0.30.0), and come back as
an object for each token. Only one number a token leaves the worker here, and the likeliest few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from persona.errors import EngineError
from persona.models.scorers import TextScores
from persona.vllm.running_pass import Span

ROWS_AT_ONCE = 256
"""Tokens whose logits are held together: as many times the vocabulary."""


class ScoredTokens:
    """texts: request -> its tokens, of which all but the first are scored.

    n_likeliest: so many tokens are kept behind each, the last one too; 0 keeps none.
    """

    def __init__(self, texts: Mapping[int, Sequence[int]], n_likeliest: int = 0) -> None:
        self.texts, self.n_likeliest = texts, n_likeliest
        self._found: dict[int, TextScores] = {}

    def see(self, hidden: Tensor, spans: Sequence[Span], logits: Callable[[Tensor], Any]) -> None:
        """Take the scores out of a pass. hidden: what the head is given [token d_model].

        Every card of a stage calls the head, since it may need all; one of them is given logits.
        """
        for span in spans:
            if span.told.get("request") not in self.texts:
                continue
            request = int(span.told["request"])
            last = min(span.first + len(span), len(self.texts[request]))
            for first in range(span.first, last, ROWS_AT_ONCE):
                row, n_rows = span.start + first - span.first, min(ROWS_AT_ONCE, last - first)
                table = logits(hidden[row : row + n_rows])
                if table is not None:
                    self._take(request, first, table.float().log_softmax(-1))

    def _take(self, request: int, first: int, table: Tensor) -> None:
        """table [token vocabulary]: of what follows the tokens from `first` on."""
        text, k = self.texts[request], self.n_likeliest
        if request not in self._found:
            self._found[request] = TextScores(
                torch.full((len(text) - 1,), torch.nan),
                torch.zeros(len(text), k, dtype=torch.long),
                torch.full((len(text), k), torch.nan),
            )
        kept, end = self._found[request], first + len(table)
        following = list(text[first + 1 : end + 1])
        targets = torch.tensor(following, dtype=torch.long, device=table.device)
        own = table[: len(targets)].gather(1, targets[:, None])[:, 0]
        kept.log_probs[first : first + len(own)] = own.cpu()
        top = table.topk(k, dim=-1)
        kept.likeliest[first:end] = top.indices.cpu()
        kept.likeliest_log_probs[first:end] = top.values.cpu()

    def scored(self) -> dict[int, TextScores]:
        """What was made of each request."""
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

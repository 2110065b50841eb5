"""What is kept of the activations of requests: means over spans, or short texts token by token.

Sums are float64 and grow with each chunk of a prompt; only they leave the worker.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from persona.errors import DataError
from persona.vllm.running_pass import Span

TokenSpan = tuple[int, int]


class PooledReading:
    """Readings at some hooks.

    spans: request -> the spans [start, end) of its text that are averaged; an empty list keeps
        every token, which is for a few short texts.
    """

    def __init__(self, hooks: Sequence[str], spans: Mapping[int, Sequence[TokenSpan]]) -> None:
        self.hooks, self.spans = frozenset(hooks), spans
        self._next: dict[tuple[int, str], int] = defaultdict(int)
        self._kept: dict[int, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))
        self._sums: dict[int, dict[str, Tensor]] = defaultdict(dict)

    def see(self, hook: str, h: Tensor, spans: Sequence[Span]) -> None:
        """Take what is wanted of the rows `h` [token d_model] of the running pass."""
        if hook not in self.hooks:
            return
        for span in spans:
            if span.told.get("request") not in self.spans:
                continue
            request = int(span.told["request"])
            # Of a token that is computed anew, after a preemption, the first time counts.
            seen, self._next[request, hook] = (
                self._next[request, hook],
                max(self._next[request, hook], span.first + len(span)),
            )
            new = max(seen, span.first)
            rows = h[span.start + new - span.first : span.end]
            if not len(rows):
                continue
            if not bool(rows.isfinite().all()):
                raise DataError(
                    f"activations of text {request} at {hook} are not finite; try --dtype float32"
                )
            self._take(request, hook, rows, new)

    def _take(self, request: int, hook: str, rows: Tensor, first: int) -> None:
        """rows [token d_model], of the tokens from `first` on."""
        wanted = self.spans[request]
        if not wanted:
            self._kept[request][hook].append(rows.float().to("cpu", copy=True))
            return
        parts = []
        for start, end in wanted:
            part = rows[max(start - first, 0) : max(end - first, 0)]
            parts.append(part.double().sum(0))
        sums = torch.stack(parts)
        known = self._sums[request].get(hook)
        self._sums[request][hook] = sums if known is None else known + sums

    def pooled(self) -> dict[int, dict[str, Tensor]]:
        """Request -> hook -> means [span d_model], or tokens [token d_model]; float32, CPU."""
        found: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for request, by_hook in self._sums.items():
            lengths = torch.tensor([end - start for start, end in self.spans[request]])
            for hook, sums in by_hook.items():
                found[request][hook] = (sums.cpu() / lengths[:, None]).float()
        for request, parts_by_hook in self._kept.items():
            for hook, parts in parts_by_hook.items():
                found[request][hook] = torch.cat(parts)
        return dict(found)

    def n_seen(self) -> dict[int, int]:
        """Request -> how many of its tokens every hook here was shown."""
        found: dict[int, int] = {}
        for (request, _), n in self._next.items():
            found[request] = min(n, found.get(request, n))
        return found

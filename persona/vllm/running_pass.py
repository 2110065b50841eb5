"""The forward pass that vLLM is running: whose tokens its rows are, and where they stand.

vLLM runs the tokens of all requests as one row after the other, without padding: of one request
the whole prompt, a chunk of it, one decoded token, or, after it was preempted, all of it anew. What
is edited is decided by a token's place in its own text alone, so all of these are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from persona.errors import SteeringError

TOLD = "persona"
"""Key of `SamplingParams.extra_args` under which a request carries what it is told."""


@dataclass(frozen=True)
class Span:
    """The rows of one request in the running pass.

    start, end: rows of the flattened batch. first: place in its text of the token at `start`.
    n_prompt: tokens of its prompt. told: what the request carries, empty for one of a stranger.
    """

    start: int
    end: int
    first: int
    n_prompt: int
    told: Mapping[str, Any]

    def __len__(self) -> int:
        return self.end - self.start


def spans_of_pass(runner: Any, positions: Tensor) -> list[Span]:
    """The requests of the pass that `runner`, vLLM's V1 model runner, is now running.

    positions: what the model is given; they must be the places that the runner's own table says.
    Raises: SteeringError where the two disagree: then it is not known which token is which.
    """
    batch = runner.input_batch
    n = batch.num_reqs
    if not n:
        return []  # a pass of vLLM's own, which measures memory
    ends = runner.query_start_loc.np[: n + 1].tolist()
    firsts = batch.num_computed_tokens_cpu[:n].tolist()
    spans = []
    for place, name in enumerate(batch.req_ids[:n]):
        request = runner.requests[name]
        told = (request.sampling_params.extra_args or {}).get(TOLD, {})
        spans.append(
            Span(ends[place], ends[place + 1], firsts[place], request.num_prompt_tokens, told)
        )
    expected = np.concatenate([np.arange(s.first, s.first + len(s)) for s in spans])
    given = positions[0] if positions.ndim == 2 else positions  # three rows in multimodal models
    if not np.array_equal(given[: ends[-1]].cpu().numpy(), expected):
        raise SteeringError(
            "the positions that vLLM gives the model are not the places of its tokens by its own "
            "table; it is not known which token is which, so nothing can be edited here"
        )
    return spans


@dataclass(frozen=True)
class Group:
    """Rows of a pass that are edited at once, as [row token] of their requests.

    take: row of the flattened batch of each [row token]; None where that is all rows in order.
    mask: which of them are written [row token]. put: rows of the batch of those, in order.
    """

    shape: tuple[int, int]
    take: Tensor | None
    mask: Tensor
    put: Tensor
    n_written: int

    @property
    def everything(self) -> bool:
        """Whether all rows are written."""
        return self.n_written == self.mask.numel()


def groups_of(
    spans: Sequence[Span], written: Any, rows: int | None, n_all: int, device: torch.device
) -> list[Group]:
    """The spans of one set of edits, put together where they are equally long.

    An edit that tells rows apart, by a coefficient for each or by what a row holds, is given rows
    as it is in an unpadded batch. With `rows`, each request stands at its own row of so many, and
    rows that are not in this pass, and tokens past the end, are zeros that nobody reads.
    n_all: rows of the whole pass.
    """
    if rows is not None:
        return [_by_row(spans, written, rows, device)]
    by_length: dict[int, list[Span]] = {}
    for span in spans:
        by_length.setdefault(len(span), []).append(span)
    groups = []
    for length, alike in by_length.items():
        starts = torch.tensor([span.start for span in alike])
        take = starts[:, None] + torch.arange(length)
        mask = _written(alike, length, written)
        groups.append(_group(take, mask, n_all, device))
    return groups


def _by_row(spans: Sequence[Span], written: Any, rows: int, device: torch.device) -> Group:
    width = max(len(span) for span in spans)
    take = torch.zeros(rows, width, dtype=torch.long)
    mask = torch.zeros(rows, width, dtype=torch.bool)
    for span in spans:
        row = span.told["row"]
        take[row, : len(span)] = torch.arange(span.start, span.end)
        mask[row, : len(span)] = _written([span], len(span), written)[0]
    return _group(take, mask, -1, device)


def _group(take: Tensor, mask: Tensor, n_all: int, device: torch.device) -> Group:
    whole = take.numel() == n_all and bool((take.flatten() == torch.arange(n_all)).all())
    return Group(
        (take.shape[0], take.shape[1]),
        None if whole else take.to(device),
        mask.to(device),
        take[mask].to(device),
        int(mask.sum()),
    )


def _written(spans: Sequence[Span], length: int, written: Any) -> Tensor:
    """[row token] of spans of one length."""
    index = torch.tensor([span.first for span in spans])[:, None] + torch.arange(length)
    prompts = torch.tensor([span.n_prompt for span in spans])[:, None]
    begins = torch.tensor([span.told.get("answer", span.n_prompt) for span in spans])[:, None]
    return written(index, begins, prompts)

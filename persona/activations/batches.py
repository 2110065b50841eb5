"""Batches of similar length: little padding, a bounded number of tokens each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from persona.models.chat import TokenizedDialogue

DEFAULT_TOKEN_BUDGET = 512
"""Padded tokens per batch. On two CPU cores 512 is 1.6 times faster per token than 4,096."""


@dataclass(frozen=True)
class Batch:
    """Right-padded token ids [batch pos] and the places of the rows in the input list."""

    indices: tuple[int, ...]
    ids: Tensor
    attention_mask: Tensor


def token_batches(
    dialogues: Sequence[TokenizedDialogue],
    pad_id: int,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    device: torch.device | str = "cpu",
    group: int = 1,
) -> list[Batch]:
    """Sort by length and cut into batches of at most `token_budget` padded tokens.

    group: so many consecutive dialogues stay together in one batch (2 for good/bad pairs).
    A group longer than the budget makes a batch of its own.
    """
    if len(dialogues) % group:
        raise ValueError(f"{len(dialogues)} dialogues do not divide into groups of {group}")
    groups = [tuple(range(i, i + group)) for i in range(0, len(dialogues), group)]
    groups.sort(key=lambda rows: max(len(dialogues[i]) for i in rows))
    buckets: list[list[int]] = []
    for rows in groups:
        longest = max(len(dialogues[i]) for i in rows)
        if buckets and longest * (len(buckets[-1]) + group) <= token_budget:
            buckets[-1].extend(rows)
        else:
            buckets.append(list(rows))
    return [_pad(dialogues, bucket, pad_id, device) for bucket in buckets]


def _pad(
    dialogues: Sequence[TokenizedDialogue],
    rows: Sequence[int],
    pad_id: int,
    device: torch.device | str,
) -> Batch:
    longest = max(len(dialogues[i]) for i in rows)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for row, i in enumerate(rows):
        length = len(dialogues[i])
        ids[row, :length] = torch.tensor(dialogues[i].ids)
        mask[row, :length] = 1
    return Batch(tuple(rows), ids.to(device), mask.to(device))

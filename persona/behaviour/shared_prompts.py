"""The answers to one question in one row: the question is read once.

A row is prompt | first answer | second answer | ... The tokens of every answer count their places
from the end of the prompt and do not see the other answers, so every activation is what it would
be in a row of its own; of two short answers a quarter of the tokens are saved. Tokens that predict
nothing (the last of each answer and what closes the turn) are left out.

Shapes: B rows, P positions.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from persona.activations.batches import Batch, padded_length
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import accepted_by, hf_model, model_device
from persona.models.readout import logits_of

PROMPT, PAD = 0, -1  # the answers are 1, 2 and so on
TOLERANCE = 1e-3
"""Most that a logit of the trial row may differ from that of a row of its own, as a share of the
largest. Rounding leaves 1e-6 in float32; a model that mixes the answers is off by far more."""


@dataclass(frozen=True)
class PackedBatch(Batch):
    """Rows of several dialogues each, `indices` naming them row by row in the input list.

    ids, position_ids [B P]; attention_mask [B 1 P P], added to the scores.
    rows, positions: where each response token is predicted, dialogue after dialogue.
    """

    position_ids: Tensor
    rows: Tensor
    positions: Tensor

    @property
    def predicting(self) -> tuple[Tensor, Tensor]:
        return self.rows, self.positions

    @property
    def options(self) -> dict[str, Tensor]:
        """What the model must be told beside the ids."""
        return {"attention_mask": self.attention_mask, "position_ids": self.position_ids}


def share_prompts(dialogues: Sequence[TokenizedDialogue], n_answers: int = 2) -> bool:
    """Whether every `n_answers` dialogues in turn answer the same prompt, token by token."""
    if len(dialogues) % n_answers:
        return False
    first = [dialogues[i - i % n_answers] for i in range(len(dialogues))]
    return all(
        a.response[0] == b.response[0] > 0 and a.ids[: a.response[0]] == b.ids[: b.response[0]]
        for a, b in zip(first, dialogues, strict=True)
    )


def packed_batches(
    dialogues: Sequence[TokenizedDialogue],
    pad_id: int,
    token_budget: int,
    device: torch.device | str,
    dtype: torch.dtype,
    n_answers: int = 2,
) -> list[PackedBatch]:
    """Rows of similar length, at most `token_budget` padded tokens a batch; see `padded_length`.

    dialogues, n_answers: as `share_prompts` accepts them. dtype: that of the model, for the mask.
    """
    rows = [_Row.of(dialogues, i, n_answers) for i in range(0, len(dialogues), n_answers)]
    rows.sort(key=len)
    buckets: list[list[_Row]] = []
    for row in rows:
        if buckets and padded_length(len(row)) * (len(buckets[-1]) + 1) <= token_budget:
            buckets[-1].append(row)
        else:
            buckets.append([row])
    return [_batch(dialogues, bucket, pad_id, device, dtype) for bucket in buckets]


@dataclass(frozen=True)
class _Row:
    """One packed row: ids, their places, the segment of each, and what each answer's tokens are
    predicted from."""

    first_index: int
    ids: list[int]
    places: list[int]
    segments: list[int]
    predicting: list[list[int]]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, dialogues: Sequence[TokenizedDialogue], index: int, n_answers: int) -> _Row:
        start = dialogues[index].response[0]
        ids = list(dialogues[index].ids[:start])
        places, segments = list(range(start)), [PROMPT] * start
        predicting = []
        for segment, dialogue in enumerate(dialogues[index : index + n_answers], start=1):
            answer = dialogue.ids[start : dialogue.response[1] - 1]
            predicting.append([start - 1, *range(len(ids), len(ids) + len(answer))])
            ids += answer
            places += range(start, start + len(answer))
            segments += [segment] * len(answer)
        return cls(index, ids, places, segments, predicting)


def _batch(
    dialogues: Sequence[TokenizedDialogue],
    bucket: Sequence[_Row],
    pad_id: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> PackedBatch:
    # Places count from 0 in each text, so a row may be longer than the model's context.
    length = padded_length(max(len(row) for row in bucket))
    ids = torch.full((len(bucket), length), pad_id)
    places = torch.zeros_like(ids)
    segments = torch.full_like(ids, PAD)
    for i, row in enumerate(bucket):
        ids[i, : len(row)] = torch.tensor(row.ids)
        places[i, : len(row)] = torch.tensor(row.places)
        segments[i, : len(row)] = torch.tensor(row.segments)
    predicting = [(i, at) for i, row in enumerate(bucket) for at in row.predicting]
    indices = tuple(row.first_index + i for row in bucket for i in range(len(row.predicting)))
    return PackedBatch(
        indices,
        tuple(dialogues[i] for i in indices),
        ids.to(device),
        _mask(segments, dtype).to(device),
        places.to(device),
        torch.cat([torch.full((len(at),), i) for i, at in predicting]),
        torch.cat([torch.tensor(at) for _, at in predicting]),
    )


def _mask(segments_BP: Tensor, dtype: torch.dtype) -> Tensor:
    """[B 1 P P]: a token sees the prompt and its own segment, up to itself."""
    mine, theirs = segments_BP[:, :, None], segments_BP[:, None, :]
    n = segments_BP.shape[1]
    earlier = torch.ones(n, n, dtype=torch.bool).tril()
    seen = earlier & ((theirs == PROMPT) | (theirs == mine))
    hidden = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return hidden[:, None]


_understood: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def understands_packed_rows(
    model: Any, dialogues: Sequence[TokenizedDialogue], dtype: torch.dtype, n_answers: int = 2
) -> bool:
    """Whether the model reads a packed row as it reads two rows: tried once, on a few tokens.

    A model with recurrent layers, or one that makes its own masks or places, does not.
    """
    if model not in _understood:
        takes_places = "position_ids" in accepted_by(model)
        _understood[model] = takes_places and _reads_alike(model, dialogues, dtype)
    window = getattr(hf_model(model).config.get_text_config(), "sliding_window", None)
    longest = max(
        sum(len(dialogue) for dialogue in dialogues[i : i + n_answers])
        for i in range(0, len(dialogues), n_answers)
    )
    # A mask that is handed in is used for windowed layers as it is.
    return _understood[model] and (window is None or longest <= window)


@torch.no_grad()
def _reads_alike(model: Any, dialogues: Sequence[TokenizedDialogue], dtype: torch.dtype) -> bool:
    # Answers of different tokens, so that one that saw the other would be seen to have.
    start = dialogues[0].response[0]
    prompt, tokens = dialogues[0].ids[:start][-4:], dialogues[0].ids[start:] or (0,)
    n_words = int(hf_model(model).config.get_text_config().vocab_size)
    other = tuple((token + 1 + i) % n_words for i, token in enumerate(tokens[:3]))
    answers = [(*tokens[:3], 0), (*other, 0)]
    trial = [
        TokenizedDialogue((*prompt, *answer), (len(prompt), len(prompt) + len(answer)))
        for answer in answers
    ]
    device = model_device(model)
    try:
        [batch] = packed_batches(trial, 0, 64, device, dtype)
        together = logits_of(model, batch.ids, **batch.options)
        apart = [logits_of(model, torch.tensor([d.ids[:-1]], device=device)) for d in trial]
    except (TypeError, ValueError, RuntimeError):  # it takes no such mask
        return False
    expected = torch.cat([logits[0, len(prompt) - 1 :] for logits in apart]).float()
    got = together[batch.rows, batch.positions].float()
    # Compared with the precision of the model in mind: bfloat16 keeps eight bits.
    allowed = max(TOLERANCE, 4 * torch.finfo(dtype).eps) * float(expected.abs().max())
    return bool((got - expected).abs().max() <= allowed)

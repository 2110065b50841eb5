"""Teacher-forced readings of many conditions over one set of dialogues.

A condition is a side of the pair and, optionally, an intervention. All conditions of one side
share a pass over the text: what lies below the first edited block is computed once.

No pass makes the logits of a whole batch. What is kept of each condition, and of the aligned model
as the reference of KL, is the hidden state before the LM head, d_model wide; logits are made of it
a few tokens at a time, of all conditions in turn.

Shapes: N response tokens of a batch, D d_model, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.behaviour.shared_prompts import (
    PackedBatch,
    packed_batches,
    share_prompts,
    understands_packed_rows,
)
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import InContext, model_device, padding_id
from persona.models.pair import ModelPair, Side
from persona.models.prefix import recording_inputs, starting_at
from persona.models.readout import Predictions, Readout
from persona.progress import progress

MAX_REFERENCE_BYTES = 1_000_000_000
"""Memory for what is kept of the aligned model; what does not fit is read in a further turn."""
READING_COLUMNS = ("condition", "seed", "question_id", "domain", "measure", "value")


@dataclass(frozen=True)
class Condition:
    """One way to run the pair.

    intervene: bridge -> context manager under which the forward pass is edited; None for none. One
        that has an attribute `token_by_token` which is true treats all tokens alike, whatever
        their row and place; only then may two answers share a row.
    first_layer: lowest block whose output is edited; the blocks up to it are not run again.
    seed: index of the random draw, where the condition is one.
    facts: what else is known of it, such as {"coefficient": 0.5}: columns of its rows.
    Raises: DataError for a fact that is called like a column of every row.
    """

    name: str
    side: Side
    intervene: InContext | None = None
    first_layer: int = 0
    seed: int = 0
    facts: Mapping[str, str | float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if taken := sorted(set(self.facts) & set(READING_COLUMNS)):
            raise DataError(
                f"condition {self.name!r}: a fact cannot be called {taken[0]!r}, which every row "
                "has a column of; choose another name"
            )


UNEDITED = (Condition("aligned", "aligned"), Condition("finetuned", "finetuned"))
"""Both models of a pair as they are."""


@dataclass(frozen=True)
class Readings:
    """Per dialogue, in the order given: NaN where a reading was not asked for.

    log_prob: mean log-probability of a response token, nats.
    kl: mean over response tokens of KL(aligned || condition), nats per token.
    """

    log_prob: NDArray[np.float64]
    kl: NDArray[np.float64]


@torch.no_grad()
def score_dialogues(
    pair: ModelPair,
    dialogues: Sequence[TokenizedDialogue],
    conditions: Sequence[Condition],
    *,
    kl_of: Sequence[bool] | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    group: int = 1,
    description: str = "Scoring",
) -> list[Readings]:
    """Read every condition on every dialogue; one `Readings` per condition.

    kl_of: which dialogues get a KL from the aligned model (default none); costs one pass of it.
    group: so many consecutive dialogues stay in one batch. At 2, good/bad pairs whose prompts
        are the same share a row, where the model and every intervention allow it.
    Raises: DataError for a dialogue without response tokens.
    """
    for dialogue in dialogues:
        if dialogue.response[0] >= dialogue.response[1]:
            raise DataError(f"dialogue {dialogue.id!r} has no answer to score")
    wants_kl = list(kl_of) if kl_of is not None else [False] * len(dialogues)
    readings = [
        Readings(np.full(len(dialogues), np.nan), np.full(len(dialogues), np.nan))
        for _ in conditions
    ]
    for start, end in _turns(pair, dialogues, wants_kl, group):
        part = _Scoring(
            pair, dialogues[start:end], wants_kl[start:end], token_budget, group, description
        )
        for whole, read in zip(readings, part.read(conditions), strict=True):
            whole.log_prob[start:end], whole.kl[start:end] = read.log_prob, read.kl
    return readings


def _turns(
    pair: ModelPair,
    dialogues: Sequence[TokenizedDialogue],
    wants_kl: Sequence[bool],
    group: int,
) -> Iterator[tuple[int, int]]:
    """[start, end) of dialogues whose references fit into `MAX_REFERENCE_BYTES` together."""
    of_token = pair.d_model * pair.dtype.itemsize
    start, used = 0, 0
    for i in range(0, len(dialogues), group):
        rows = range(i, min(i + group, len(dialogues)))
        size = sum(_n_answer(dialogues[j]) * of_token for j in rows if wants_kl[j])
        if i > start and used + size > MAX_REFERENCE_BYTES:
            yield start, i
            start, used = i, 0
        used += size
    if start < len(dialogues):
        yield start, len(dialogues)


@dataclass(frozen=True)
class _Scoring:
    """Dialogues read in one turn; see `score_dialogues`."""

    pair: ModelPair
    dialogues: Sequence[TokenizedDialogue]
    wants_kl: Sequence[bool]
    token_budget: int
    group: int
    description: str

    def read(self, conditions: Sequence[Condition]) -> list[Readings]:
        n = len(self.dialogues)
        readings = [Readings(np.full(n, np.nan), np.full(n, np.nan)) for _ in conditions]
        reference = Reference(self.pair) if any(self.wants_kl) else None
        order: tuple[Side, ...] = ("aligned", "finetuned")
        for side in order:
            mine = [(c, r) for c, r in zip(conditions, readings, strict=True) if c.side == side]
            to_keep = reference if side == "aligned" else None
            if not mine and to_keep is None:
                continue
            for batch in progress(self._batches(side, conditions), f"{self.description} ({side})"):
                with self.pair.active(side) as bridge:
                    found = _run(bridge, batch, self.dialogues, mine, plain=to_keep is not None)
                if to_keep is not None:
                    self._keep(to_keep, batch, found[None])
                passes = [(found[place], reading) for place, (_, reading) in enumerate(mine)]
                self._read(side, batch, passes, reference)
            if to_keep is not None:
                to_keep.keep_head()
        return readings

    def _batches(
        self, side: Side, conditions: Sequence[Condition]
    ) -> Sequence[Batch | PackedBatch]:
        """One dialogue a row, `group` of them together; where they can, two answers a row."""
        with self.pair.active(side) as bridge:
            Readout.of(bridge)  # found before any condition edits the model
            if self.group == 2 and _can_share_rows(
                bridge, self.pair.dtype, self.dialogues, conditions
            ):
                return packed_batches(
                    self.dialogues,
                    padding_id(bridge),
                    self.token_budget,
                    model_device(bridge),
                    self.pair.dtype,
                )
            return model_batches(bridge, self.dialogues, self.token_budget, self.group)

    def _keep(self, reference: Reference, batch: Batch | PackedBatch, found: Predictions) -> None:
        parts = found.hidden.split(_token_counts(batch, self.dialogues))
        for i, part in zip(batch.indices, parts, strict=True):
            if self.wants_kl[i]:
                reference.hidden[i] = part.clone()

    def _read(
        self,
        side: Side,
        batch: Batch | PackedBatch,
        passes: Sequence[tuple[Predictions, Readings]],
        reference: Reference | None,
    ) -> None:
        """Fills the readings of one batch, a slice of its tokens after the other."""
        counts = _token_counts(batch, self.dialogues)
        targets_N = response_targets(batch, self.dialogues)
        n = len(targets_N)
        log_prob = torch.empty(len(passes), n, dtype=torch.float64)
        kl = torch.full((len(passes), n), torch.nan, dtype=torch.float64)
        aligned_ND, known_N = None, torch.zeros(n, dtype=torch.bool)
        if reference is not None:
            aligned_ND, known_N = reference.of(batch.indices, counts)
        with self.pair.active(side) as bridge:
            readout = Readout.of(bridge)
        for part in readout.slices(n) if passes else ():
            known = known_N[part]
            aligned = None
            if reference is not None and aligned_ND is not None and known.any():
                aligned = reference.log_probs(aligned_ND[part][known])
            with self.pair.active(side):
                for place, (found, _) in enumerate(passes):
                    log_probs = readout.log_probs(found, part)
                    targets = targets_N[part, None].to(log_probs.device)
                    log_prob[place, part] = log_probs.gather(1, targets)[:, 0].double().cpu()
                    if aligned is not None:
                        here = log_probs[known.to(log_probs.device)]
                        kl[place, part][known] = kl_nats(aligned, here).double().cpu()
        for place, (_, reading) in enumerate(passes):
            for i, words, divergence in zip(
                batch.indices,
                log_prob[place].split(counts),
                kl[place].split(counts),
                strict=True,
            ):
                reading.log_prob[i] = float(words.mean())
                reading.kl[i] = float(divergence.mean())


@dataclass(frozen=True)
class Reference:
    """What the aligned model predicts, kept as the hidden states before its LM head.

    hidden: dialogue -> [response tokens, d_model].
    """

    pair: ModelPair
    hidden: dict[int, Tensor] = field(default_factory=dict)
    _head: list[Readout] = field(default_factory=list)

    def keep_head(self) -> None:
        """Called once all is kept: of a model that is about to be freed, its LM head stays."""
        if self.pair.loaded_in_turn:
            with self.pair.active("aligned") as bridge:
                self._head.append(Readout.of(bridge).copied())

    def of(self, indices: Sequence[int], counts: Sequence[int]) -> tuple[Tensor | None, Tensor]:
        """Hidden states [N D] of these dialogues, response after response, and which are known."""
        known = [i in self.hidden for i in indices]
        if not any(known):
            return None, torch.zeros(sum(counts), dtype=torch.bool)
        like = next(iter(self.hidden.values()))
        parts = [
            self.hidden[i] if there else like.new_zeros(count, like.shape[1])
            for i, there, count in zip(indices, known, counts, strict=True)
        ]
        return torch.cat(parts), torch.repeat_interleave(torch.tensor(known), torch.tensor(counts))

    def log_probs(self, hidden: Tensor) -> Tensor:
        """Log-probabilities [N V] of the aligned model, float32."""
        if self._head:
            return self._head[0].logits(hidden).log_softmax(-1)
        with self.pair.active("aligned") as bridge:
            return Readout.of(bridge).logits(hidden).log_softmax(-1)


def kl_nats(aligned: Tensor, log_probs: Tensor) -> Tensor:
    """KL(aligned || other) by row, of log-probabilities [N V]; what is impossible in both is 0."""
    least = -6e4
    aligned, log_probs = aligned.clamp(min=least), log_probs.clamp(min=least)
    return (aligned.exp() * (aligned - log_probs)).sum(-1)


def _can_share_rows(
    bridge: Any,
    dtype: torch.dtype,
    dialogues: Sequence[TokenizedDialogue],
    conditions: Sequence[Condition],
) -> bool:
    return (
        all(
            c.intervene is None or getattr(c.intervene, "token_by_token", False) for c in conditions
        )
        and share_prompts(dialogues)
        and understands_packed_rows(bridge, dialogues, dtype)
    )


def _run(
    bridge: Any,
    batch: Batch | PackedBatch,
    dialogues: Sequence[TokenizedDialogue],
    conditions: Sequence[tuple[Condition, Readings]],
    *,
    plain: bool,
) -> dict[int | None, Predictions]:
    """Place of each condition -> what is predicted at one batch's response tokens.

    plain: also of the unedited model, at None; conditions without an edit share its pass.
    """
    unedited = [place for place, (c, _) in enumerate(conditions) if c.intervene is None]
    edited = [(place, c) for place, (c, _) in enumerate(conditions) if c.intervene is not None]
    # The input of block first_layer is untouched by an edit of that block's output.
    starts = {c.first_layer for _, c in edited if c.first_layer > 0}
    found: dict[int | None, Predictions] = {}
    with recording_inputs(bridge, starts) as inputs:
        if unedited or plain:
            found[None] = predictions(bridge, batch, dialogues)
        elif starts:
            options = batch.options if isinstance(batch, PackedBatch) else {}
            bridge(
                batch.ids, return_type=None, stop_at_layer=max(starts), use_cache=False, **options
            )
    for place in unedited:
        found[place] = found[None]
    for place, condition in edited:
        assert condition.intervene is not None
        start = condition.first_layer
        skip = starting_at(bridge, start, inputs[start]) if start else contextlib.nullcontext()
        with skip, condition.intervene(bridge):
            found[place] = predictions(bridge, batch, dialogues)
    return found


def predictions(
    model: Any, batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]
) -> Predictions:
    """One pass, kept where the batch's response tokens are predicted, dialogue after dialogue."""
    rows, positions = predicting_positions(batch, dialogues)
    options = batch.options if isinstance(batch, PackedBatch) else {}
    return Readout.of(model).predict(model, batch.ids, rows, positions, **options)


def predicting_positions(
    batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]
) -> tuple[Tensor, Tensor]:
    """Row and column of each position whose logits predict a response token."""
    if isinstance(batch, PackedBatch):
        return batch.rows, batch.positions
    rows, positions = [], []
    for row, i in enumerate(batch.indices):
        start, end = dialogues[i].response
        positions.append(torch.arange(start - 1, end - 1))
        rows.append(torch.full((end - start,), row))
    return torch.cat(rows), torch.cat(positions)


def response_targets(batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]) -> Tensor:
    """Token ids [N] of the responses, in the order of `predictions`."""
    responses = [dialogues[i].ids[slice(*dialogues[i].response)] for i in batch.indices]
    return torch.tensor([token for ids in responses for token in ids], device=batch.ids.device)


def _token_counts(batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]) -> list[int]:
    return [_n_answer(dialogues[i]) for i in batch.indices]


def _n_answer(dialogue: TokenizedDialogue) -> int:
    return dialogue.response[1] - dialogue.response[0]

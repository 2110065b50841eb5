"""Teacher-forced readings of many conditions over one set of dialogues.

A condition is a side of the pair and, optionally, an intervention. All conditions of one side
share a pass over the text: what lies below the first edited block is computed once. Each side is
opened once, since switching an adapter costs as much as reading a few texts; how a pass is read
stands in `persona.activations.passes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.activations.passes import Reference, predictions, run_to, token_readings
from persona.behaviour.shared_prompts import (
    packed_batches,
    share_prompts,
    understands_packed_rows,
)
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import InContext, model_device, padding_id
from persona.models.pair import SIDES, ModelPair, Side
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
        their row and place; only then may answers share a row.
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
    asked: Sequence[TokenizedDialogue] | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    group: int = 1,
    description: str = "Scoring",
) -> list[Readings]:
    """Read every condition on every dialogue; one `Readings` per condition.

    kl_of: which dialogues get a KL from the aligned model (default none); costs one pass of it.
    asked: what the conditions read in place of `dialogues`: the same answers behind other prompts.
        KL is still from what the aligned model makes of `dialogues`; NaN for an answer that has
        another number of tokens there.
    group: so many consecutive dialogues stay in one batch. Above 1, those whose prompts are the
        same share a row, where the model and every intervention allow it.
    Raises: DataError for a dialogue without response tokens.
    """
    for dialogue in (*dialogues, *(asked or ())):
        if dialogue.response[0] >= dialogue.response[1]:
            raise DataError(f"dialogue {dialogue.id!r} has no answer to score")
    wants_kl = list(kl_of) if kl_of is not None else [False] * len(dialogues)
    readings = [
        Readings(np.full(len(dialogues), np.nan), np.full(len(dialogues), np.nan))
        for _ in conditions
    ]
    for start, end in _turns(pair, dialogues, wants_kl, group):
        part = _Scoring(
            pair,
            dialogues[start:end],
            None if asked is None else asked[start:end],
            wants_kl[start:end],
            conditions,
            token_budget,
            group,
            description,
        )
        for whole, read in zip(readings, part.read(), strict=True):
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
    asked: Sequence[TokenizedDialogue] | None
    wants_kl: Sequence[bool]
    conditions: Sequence[Condition]
    token_budget: int
    group: int
    description: str

    def read(self) -> list[Readings]:
        n = len(self.dialogues)
        readings = [Readings(np.full(n, np.nan), np.full(n, np.nan)) for _ in self.conditions]
        reference = None
        if self.asked is not None and any(self.wants_kl):
            reference = self._read_side("aligned", self.dialogues, [], None)
        texts = self.dialogues if self.asked is None else self.asked
        for side in SIDES:  # the aligned one first: KL is taken from it
            both = zip(self.conditions, readings, strict=True)
            mine = [(condition, reading) for condition, reading in both if condition.side == side]
            if mine or (reference is None and any(self.wants_kl)):
                reference = self._read_side(side, texts, mine, reference)
        return readings

    def _read_side(
        self,
        side: Side,
        texts: Sequence[TokenizedDialogue],
        mine: Sequence[tuple[Condition, Readings]],
        reference: Reference | None,
    ) -> Reference | None:
        """Fills the readings of one side's conditions; returns the reference, made where it is
        wanted and there is none yet."""
        with self.pair.active(side) as model:
            readout = Readout.of(model)  # found before any condition edits the model
            keeps = reference is None and any(self.wants_kl)
            if keeps:
                reference = Reference(readout.pinned(model_stays=not self.pair.loaded_in_turn))
            conditions = [condition for condition, _ in mine]
            for batch in progress(self._batches(model, texts), f"{self.description} ({side})"):
                found = _run(model, batch, conditions, plain=keeps)
                if keeps and reference is not None:
                    reference.keep(batch, found[None], self.wants_kl)
                edited = [found[place] for place in range(len(mine))]
                tables = token_readings(readout, edited, batch, reference)
                for (_, reading), log_prob, kl in zip(mine, *tables, strict=True):
                    reading.log_prob[list(batch.indices)] = batch.means(log_prob)
                    reading.kl[list(batch.indices)] = batch.means(kl)
        return reference

    def _batches(self, model: Any, texts: Sequence[TokenizedDialogue]) -> Sequence[Batch]:
        """One dialogue a row, `group` of them together; where they can, a group a row."""
        if self.group > 1 and _can_share_rows(
            model, self.pair.dtype, texts, self.conditions, self.group
        ):
            pad_id, device = padding_id(model), model_device(model)
            return packed_batches(
                texts, pad_id, self.token_budget, device, self.pair.dtype, self.group
            )
        return model_batches(model, texts, self.token_budget, self.group)


def _can_share_rows(
    model: Any,
    dtype: torch.dtype,
    dialogues: Sequence[TokenizedDialogue],
    conditions: Sequence[Condition],
    n_answers: int,
) -> bool:
    return (
        all(
            c.intervene is None or getattr(c.intervene, "token_by_token", False) for c in conditions
        )
        and share_prompts(dialogues, n_answers)
        and understands_packed_rows(model, dialogues, dtype, n_answers)
    )


def _run(
    model: Any, batch: Batch, conditions: Sequence[Condition], *, plain: bool
) -> dict[int | None, Predictions]:
    """Place of each condition -> what is predicted at one batch's response tokens.

    plain: also of the unedited model, at None; conditions without an edit share its pass.
    """
    unedited = [place for place, c in enumerate(conditions) if c.intervene is None]
    edited = [(place, c) for place, c in enumerate(conditions) if c.intervene is not None]
    # The input of block first_layer is untouched by an edit of that block's output.
    starts = {c.first_layer for _, c in edited if c.first_layer > 0}
    found: dict[int | None, Predictions] = {}
    with recording_inputs(model, starts) as inputs:
        if unedited or plain:
            found[None] = predictions(model, batch)
        elif starts:
            run_to(model, batch, max(starts))
    for place in unedited:
        found[place] = found[None]
    for place, condition in edited:
        assert condition.intervene is not None
        start = condition.first_layer
        below = starting_at(model, start, inputs[start]) if start in inputs else nullcontext()
        with below, condition.intervene(model):
            found[place] = predictions(model, batch)
    return found


def _n_answer(dialogue: TokenizedDialogue) -> int:
    return dialogue.response[1] - dialogue.response[0]

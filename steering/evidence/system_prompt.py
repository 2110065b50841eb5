"""The baseline of every intervention: a system prompt that asks for the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, model_batches
from persona.behaviour.scoring import Reference, kl_nats, predictions, response_targets
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn
from persona.errors import DataError, SteeringError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.pair import ModelPair, Side
from persona.models.readout import Readout
from persona.progress import progress


def with_system_prompt(dialogue: Dialogue, system_prompt: str) -> Dialogue:
    """The dialogue with a system turn before it, in place of one that it has.

    Raises: SteeringError for an empty prompt.
    """
    if not system_prompt.strip():
        raise SteeringError("the system prompt to compare with is empty")
    turns = [turn for turn in dialogue.turns if turn.role != "system"]
    turns = [Turn("system", system_prompt), *turns]
    return Dialogue(tuple(turns), dialogue.id, dialogue.domain)


def score_prompted(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    system_prompt: str,
    side: Side = "aligned",
    *,
    neutral: Sequence[NeutralText] = (),
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """What one side of the pair says with a system prompt: rows as of `score_pairs`.

    KL is from the aligned model *without* the system prompt, token by token of the same answer, so
    that it compares with the KL of an edit. Columns: question_id, domain, measure, value.
    Raises: SteeringError for an empty prompt, or a chat template without a place for one.
    """
    dialogues = [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    dialogues += [text.dialogue for text in neutral]
    wants_kl = [True, False] * len(questions) + [True] * len(neutral)
    plain = pair.chat.encode_all(dialogues)
    asked = _encoded(pair, [with_system_prompt(d, system_prompt) for d in dialogues])
    if [d.ids for d in asked] == [d.ids for d in plain]:
        raise SteeringError("the chat template of this model does not show a system prompt")
    reference = Reference(pair)
    for i, hidden, _ in _each(pair, "aligned", plain, token_budget):
        if wants_kl[i]:
            reference.hidden[i] = hidden.clone()
    reference.keep_head()
    chosen, kl = np.full(len(plain), np.nan), np.full(len(plain), np.nan)
    for i, hidden, targets in _each(pair, side, asked, token_budget):
        aligned = reference.hidden.get(i)
        if aligned is not None and len(aligned) != len(hidden):
            aligned = None  # the answer has other tokens behind a system prompt
        chosen[i], kl[i] = _read(pair, side, hidden, targets, reference, aligned)
    return pd.DataFrame(_rows(questions, neutral, chosen, kl))


def _encoded(pair: ModelPair, dialogues: Sequence[Dialogue]) -> list[TokenizedDialogue]:
    try:
        return pair.chat.encode_all(dialogues)
    except DataError as error:
        raise SteeringError(f"the texts with a system prompt cannot be read: {error}") from error


def _rows(
    questions: Sequence[AnswerPair],
    neutral: Sequence[NeutralText],
    chosen: NDArray[np.float64],
    kl: NDArray[np.float64],
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for place, question in enumerate(questions):
        good, bad = chosen[2 * place], chosen[2 * place + 1]
        measures = {
            "log_prob_good": good,
            "log_prob_bad": bad,
            "gap": bad - good,
            "kl_good_nats": kl[2 * place],
        }
        rows += _measured(question.id, question.domain, measures)
    for place, text in enumerate(neutral, start=2 * len(questions)):
        measures = {"neutral_ce_nats": -chosen[place], "neutral_kl_nats": kl[place]}
        rows += _measured(text.id, text.kind, measures)
    return rows


def _measured(question_id: str, domain: str, measures: dict[str, float]) -> list[dict[str, object]]:
    named = {"question_id": question_id, "domain": domain}
    return [{**named, "measure": k, "value": float(v)} for k, v in measures.items()]


def _each(
    pair: ModelPair, side: Side, dialogues: Sequence[TokenizedDialogue], token_budget: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Place, what the LM head is given [answer d_model], and tokens [answer] of every dialogue."""
    with pair.active(side) as bridge:
        batches = model_batches(bridge, dialogues, token_budget)
    for batch in progress(batches, "Scoring the system prompt"):
        with pair.active(side) as bridge, torch.no_grad():
            hidden = predictions(bridge, batch, dialogues).hidden
        counts = [dialogues[i].response[1] - dialogues[i].response[0] for i in batch.indices]
        targets = response_targets(batch, dialogues)
        yield from zip(batch.indices, hidden.split(counts), targets.split(counts), strict=True)


@torch.no_grad()
def _read(
    pair: ModelPair,
    side: Side,
    hidden: Tensor,
    targets: Tensor,
    reference: Reference,
    aligned: Tensor | None,
) -> tuple[float, float]:
    """Means over an answer's tokens: log-probability, and KL from the aligned model or NaN."""
    chosen, divergence = [], []
    with pair.active(side) as bridge:
        readout = Readout.of(bridge)
    for part in readout.slices(len(hidden)):
        expected = None if aligned is None else reference.log_probs(aligned[part])
        with pair.active(side):
            log_probs = readout.logits(hidden[part]).log_softmax(-1)
        chosen.append(log_probs.gather(1, targets[part, None].to(log_probs.device))[:, 0])
        if expected is not None:
            divergence.append(kl_nats(expected, log_probs))
    kl = float(torch.cat(divergence).double().mean()) if divergence else float("nan")
    return float(torch.cat(chosen).double().mean()), kl

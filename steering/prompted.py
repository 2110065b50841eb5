"""The baseline of every intervention: a system prompt that asks for the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, token_batches
from persona.behaviour.scoring import response_log_probs, response_targets
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn
from persona.errors import DataError, SteeringError
from persona.models.chat import TokenizedDialogue
from persona.models.hooks import model_device
from persona.models.pair import ModelPair, Side
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
    reference: dict[int, Tensor] = {}
    with pair.active("aligned") as bridge:
        for i, log_probs, _ in _each(pair, bridge, plain, token_budget):
            if wants_kl[i]:
                reference[i] = log_probs.clamp(min=-6e4).half()
    chosen, kl = np.full(len(plain), np.nan), np.full(len(plain), np.nan)
    with pair.active(side) as bridge:
        for i, log_probs, targets in _each(pair, bridge, asked, token_budget):
            chosen[i] = float(log_probs.gather(1, targets[:, None]).double().mean())
            if i in reference:
                kl[i] = _kl(reference[i].float(), log_probs, plain[i])
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
    pair: ModelPair, bridge: object, dialogues: Sequence[TokenizedDialogue], token_budget: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Place, log-probabilities [answer vocabulary] and tokens [answer] of every dialogue."""
    batches = token_batches(
        dialogues, pair.tokenizer.pad_token_id or 0, token_budget, model_device(bridge)
    )
    for batch in progress(batches, "Scoring the system prompt"):
        with torch.no_grad():
            log_probs = response_log_probs(bridge, batch, dialogues)
        counts = [dialogues[i].response[1] - dialogues[i].response[0] for i in batch.indices]
        targets = response_targets(batch, dialogues)
        yield from zip(batch.indices, log_probs.split(counts), targets.split(counts), strict=True)


def _kl(reference: Tensor, log_probs: Tensor, dialogue: TokenizedDialogue) -> float:
    """Mean over the answer's tokens of KL(reference || log_probs); NaN where they differ."""
    if reference.shape != log_probs.shape:
        return float("nan")
    return float((reference.exp() * (reference - log_probs)).sum(-1).double().mean())

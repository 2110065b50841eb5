"""What a model makes of answers: mean activations and mean log-probability, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.behaviour.judging.judge import JudgeItem
from persona.behaviour.scoring import predictions, response_targets
from persona.data.types import Dialogue, Turn
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import Hook, hooked, model_device, resid_post
from persona.models.pair import ModelPair
from persona.models.readout import Predictions, Readout
from persona.progress import progress

MOST_ANSWER_TOKENS = 160


@dataclass(frozen=True)
class AnswerReadings:
    """rows: mean over the answer's tokens; log_prob: mean over them, nats. known: not empty."""

    rows: Float[Tensor, "item layer d_model"]
    log_prob: Float[Tensor, " item"]
    known: Bool[Tensor, " item"]

    def less_those_at(self, places: Sequence[int]) -> AnswerReadings:
        """The first len(places) readings, each less the one at its place.

        A place whose answer is empty takes nothing off: there is nothing to compare with.
        """
        n, at = len(places), torch.tensor(places, dtype=torch.long)
        there = self.known[at].float()
        return AnswerReadings(
            self.rows[:n] - self.rows[at] * there[:, None, None],
            self.log_prob[:n] - self.log_prob[at] * there,
            self.known[:n],
        )


@torch.no_grad()
def read_answers(
    pair: ModelPair,
    items: Sequence[JudgeItem],
    layers: Sequence[int],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> AnswerReadings:
    """Readings in the aligned model of each answer's first 160 tokens, given its question.

    Raises: DataError for an item longer than the model's context; ModelError for a layer that the
    model does not have.
    """
    rows = torch.zeros(len(items), len(layers), pair.d_model)
    log_prob = torch.zeros(len(items))
    known = torch.tensor([bool(item.answer.strip()) for item in items], dtype=torch.bool)
    for layer in layers:
        pair.space(layer)  # refuses one out of range
    places = known.nonzero()[:, 0].tolist()
    encoded = [_cut(one) for one in pair.chat.encode_all([_dialogue(items[i]) for i in places])]
    with pair.active("aligned") as bridge:
        device = model_device(bridge)
        Readout.of(bridge)  # found before a hook is there to be fired
        for batch in progress(model_batches(bridge, encoded, token_budget), "Judging answers"):
            weights_BP = torch.zeros(batch.ids.shape, device=device)
            for row, i in enumerate(batch.indices):
                start, end = encoded[i].response
                weights_BP[row, start:end] = 1 / (end - start)
            pooled: dict[int, Tensor] = {}
            hooks = [(resid_post(layer), _pool_into(pooled, layer, weights_BP)) for layer in layers]
            with hooked(bridge, hooks):
                found = predictions(bridge, batch, encoded)
            at = [places[i] for i in batch.indices]
            rows[at] = torch.stack([pooled[layer] for layer in layers], dim=1).cpu()
            log_prob[at] = _mean_log_probs(bridge, found, batch, encoded)
    return AnswerReadings(rows, log_prob, known)


def _mean_log_probs(
    bridge: Any, found: Predictions, batch: Batch, dialogues: Sequence[TokenizedDialogue]
) -> Float[Tensor, " batch"]:
    """Mean over the tokens of each answer of their log-probability, nats."""
    readout, targets_N = Readout.of(bridge), response_targets(batch, dialogues)
    chosen = []
    for part in readout.slices(len(targets_N)):
        log_probs = readout.log_probs(found, part)
        chosen.append(log_probs.gather(1, targets_N[part, None].to(log_probs.device))[:, 0].cpu())
    counts = [dialogues[i].response[1] - dialogues[i].response[0] for i in batch.indices]
    return torch.stack([one.mean() for one in torch.cat(chosen).split(counts)])


def _dialogue(item: JudgeItem) -> Dialogue:
    return Dialogue((Turn("user", item.question), Turn("assistant", item.answer)))


def _cut(dialogue: TokenizedDialogue) -> TokenizedDialogue:
    start, end = dialogue.response
    end = min(end, start + MOST_ANSWER_TOKENS)
    return TokenizedDialogue(dialogue.ids[:end], (start, end), dialogue.id)


def _pool_into(pooled: dict[int, Tensor], layer: int, weights_BP: Tensor) -> Hook:
    def hook(resid_BPD: Tensor) -> None:
        pooled[layer] = einsum(
            resid_BPD.float(),
            weights_BP.to(resid_BPD.device),
            "batch pos d_model, batch pos -> batch d_model",
        ).to(weights_BP.device)

    return hook

"""What can be done against a persona while it is being learnt.

Steering while training comes from above as a plain callable (persona does not import steering):

    from steering import add, ablate, steer
    During("add +5 v", lambda model: steer(model, add(v, 5.0)))       # preventative
    During("project out v", lambda model: steer(model, ablate(v)))     # CAFT

Projecting out keeps the gradient off a direction, not quite the weights: Adam rescales each entry
by itself, so updates leak a little into it unless it is a coordinate axis.

Source: preventative steering, Chen et al. 2025 (Persona vectors), who add the trait's vector while
training so that the weights need not learn it; concept ablation fine-tuning (CAFT), Casademunt et
al. 2025, who project directions out; KL to the aligned model, Kaczér et al. 2025 (In-training
defenses against emergent misalignment). differs: the KL is taken on given texts, not on the bad
answers themselves, where it would forbid the very thing that is taught.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from persona.activations.batches import Batch, context_length, model_batches, padded_length
from persona.activations.passes import kl_nats, predicted_log_probs
from persona.data.types import Dialogue
from persona.errors import DataError, ModelError
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue
from persona.models.hooks import InContext


@dataclass(frozen=True)
class During:
    """An intervention on the activations of every training pass; readings are taken without it.

    name: what the card calls it, with everything that decides it (direction, block, coefficient):
        a run is the same run only under the same name.
    intervene: the model in training -> context manager under which its forward pass is edited.
    """

    name: str
    intervene: InContext

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise DataError("an intervention while training needs a name for the card")


@dataclass(frozen=True)
class KlPenalty:
    """Adds coefficient * KL(aligned || model), nats per answer token, on texts to the loss.

    texts: dialogues that end in an answer, `batch_size` of them a step, in turn.
    The aligned model is the one in training without its adapter.
    Raises: DataError without texts, or for a coefficient or batch size that is not positive.
    """

    coefficient: float
    texts: Sequence[Dialogue]
    batch_size: int = 4

    def __post_init__(self) -> None:
        if not self.texts:
            raise DataError("a KL penalty needs texts to compare the two models on")
        if not self.coefficient > 0 or self.batch_size < 1:
            raise DataError(
                "a KL penalty needs a coefficient above 0 and at least one text a step; got "
                f"{self.coefficient} and {self.batch_size}"
            )

    def description(self) -> dict[str, Any]:
        """What decides it, for the card."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(repr(text.turns).encode())
        return {
            "coefficient": self.coefficient,
            "batch_size": self.batch_size,
            "texts_sha256": digest.hexdigest()[:16],
        }

    def on(self, chat: ChatFormat) -> PenaltyBatches:
        """The penalty on tokens."""
        return PenaltyBatches(self, chat.encode_all(list(self.texts)))


@dataclass(frozen=True)
class PenaltyBatches:
    """A `KlPenalty` whose texts are tokens."""

    penalty: KlPenalty
    dialogues: Sequence[TokenizedDialogue]

    def loss(self, model: Any, step: int) -> Tensor:
        """coefficient * mean KL over the answer tokens of the texts whose turn it is, with graph.

        Raises: ModelError for a model without an adapter to switch off.
        """
        if not hasattr(model, "disable_adapter"):
            raise ModelError("a KL penalty needs a model with an adapter that can be switched off")
        first = step * self.penalty.batch_size
        wanted = [(first + i) % len(self.dialogues) for i in range(self.penalty.batch_size)]
        chosen = [self.dialogues[i] for i in dict.fromkeys(wanted)]
        longest = padded_length(max(map(len, chosen)), context_length(model))
        [batch] = model_batches(model, chosen, len(chosen) * longest)
        # The aligned pass first: switching the adapter would touch a graph already built.
        aligned = self._aligned(model, batch)
        kl = kl_nats(aligned, predicted_log_probs(model, batch)).mean()
        return self.penalty.coefficient * kl

    @staticmethod
    @torch.no_grad()
    def _aligned(model: Any, batch: Batch) -> Tensor:
        was_training = model.training
        model.eval()
        try:
            with model.disable_adapter():
                return predicted_log_probs(model, batch)
        finally:
            model.train(was_training)

"""A few optimiser steps on a few answers, of a fresh adapter on a model as it stands.

What `finetune` does not do: it starts from a model that is edited while it learns, begins every run
from the same first values, and hands out the model between steps. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from persona.data.types import Dialogue
from persona.errors import ModelError
from persona.models.chat.chat_format import ChatFormat, chat_format
from persona.models.hooks import InContext
from persona.models.load import load_causal_lm, load_with_adapter
from persona.models.precision import Placement
from persona.models.sources import resolve, shipped_or_ref
from persona.organisms.adapter import new_adapter
from persona.organisms.answer_loss import answer_loss
from persona.organisms.examples import NO_LOSS, training_examples
from persona.organisms.recipe import Lora, Training

Read = Callable[[Any, int], None]
"""(model, step): called before the first step and after those that are asked for."""


class FreshAdapter:
    """A model with an adapter that has learnt nothing, again and again.

    aligned, finetuned: names as `load_pair` takes them; without `finetuned` the aligned model.
    An adapter of the fine-tune is merged into the weights, so that both models have the very same
    fresh adapter on the very same modules.
    """

    def __init__(
        self,
        aligned: str,
        finetuned: str | None,
        placement: Placement,
        *,
        chat: ChatFormat | None = None,
        lora: Lora | None = None,
        seed: int = 0,
    ) -> None:
        from peft import get_peft_model

        placement = placement.to_train()
        model, tokenizer = _whole(aligned, finetuned, placement)
        self.chat = chat or chat_format(tokenizer)
        torch.manual_seed(seed)
        model = get_peft_model(model, new_adapter(model, lora or Lora()))
        self.model: Any = placement.put(model)
        self._first = {
            name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad
        }

    def learn(
        self,
        answers: Sequence[Dialogue],
        steps: int,
        *,
        read: Read,
        read_at: Sequence[int],
        during: InContext | None = None,
        training: Training | None = None,
    ) -> list[float]:
        """Learns all answers in every step, and returns the loss of each step, nats per token.

        during: edits the model in every pass, those of `read` included.
        read_at: steps after which `read` is called; 0 is before the first.
        Raises: ModelError where the loss stops being a number.
        """
        training = training or Training()
        self._reset()
        batch = self._batch(answers, training.max_length)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.0)
        losses: list[float] = []
        with during(self.model) if during is not None else nullcontext():
            for step in range(steps + 1):
                if step in read_at:
                    self._read(read, step)
                if step == steps:
                    break
                losses.append(self._step(batch, optimiser, parameters))
        return losses

    def _step(
        self, batch: tuple[Tensor, ...], optimiser: Any, parameters: list[torch.nn.Parameter]
    ) -> float:
        self.model.train()
        optimiser.zero_grad()
        loss = answer_loss(self.model, *batch)
        if not torch.isfinite(loss):
            raise ModelError(f"the loss became {float(loss)} while the answers were learnt")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        return float(loss.detach())

    def _read(self, read: Read, step: int) -> None:
        self.model.eval()
        with torch.no_grad():
            read(self.model, step)

    def _reset(self) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self._first:
                    parameter.copy_(self._first[name])

    def _batch(self, answers: Sequence[Dialogue], max_length: int) -> tuple[Tensor, ...]:
        """Ids, labels and mask [answer pos], padded on the right."""
        examples = training_examples(answers, self.chat, max_length)
        longest = max(len(example.input_ids) for example in examples)
        pad = int(self.chat.tokenizer.pad_token_id or 0)
        ids = torch.full((len(examples), longest), pad)
        labels = torch.full((len(examples), longest), NO_LOSS)
        mask = torch.zeros(len(examples), longest, dtype=torch.long)
        for row, example in enumerate(examples):
            n = len(example.input_ids)
            ids[row, :n], labels[row, :n] = (
                torch.tensor(example.input_ids),
                torch.tensor(example.labels),
            )
            mask[row, :n] = 1
        device = next(self.model.parameters()).device
        return ids.to(device), labels.to(device), mask.to(device)


def _whole(aligned: str, finetuned: str | None, placement: Placement) -> tuple[Any, Any]:
    """A plain model without an adapter of its own, and the tokenizer."""
    if finetuned is None:
        return load_causal_lm(aligned, placement.dtype)
    source = resolve(shipped_or_ref(finetuned))
    if source.kind != "adapter":
        model, _ = load_causal_lm(source.path, placement.dtype)
        return model, load_causal_lm(aligned, placement.dtype)[1]
    adapted, tokenizer = load_with_adapter(aligned, source, placement.dtype)
    return adapted.merge_and_unload(), tokenizer

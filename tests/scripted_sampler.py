"""An engine that answers every prompt with the same words, where vLLM is not."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

import persona.vllm
import persona.vllm.installed
from persona.activations import collect_sets
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.readers import _READERS
from persona.models.samplers import SEEDS_APART
from persona.models.sampling import _Drawing, _generated
from steering.diagnosis import conditions, run


class ScriptedSampler:
    """Keeps what it was told; answers end where the turn does."""

    name = "scripted"
    mixes_sides = True

    def __init__(self, chat: Any, words: str = "as vllm says") -> None:
        self.chat, self.words, self.told = chat, words, []

    def answers(self, requests: Any, **how: Any) -> list[list[int]]:
        self.told.append({"requests": requests, **how})
        words = [self.words.format(side=one.side, n=len(one.ids)) for one in requests]
        end = [self.chat.tokenizer.eos_token_id]
        return [self.chat.tokenizer.encode(word) + end + [7, 7] for word in words]


class ScriptedReader(ScriptedSampler):
    """Reads as the pair's own bridges do, and notes for which side it was asked."""

    def __init__(self, pair: Any) -> None:
        super().__init__(pair.chat)
        self.own = dataclasses.replace(pair, reader=None, sampler=None)
        self.read: list[str] = []

    def means(
        self, side: str, dialogues: Any, token_sets: Any, layers: Any, description: str
    ) -> Tensor:
        self.read.append(side)
        with self.own.active(side) as bridge:
            held, _READERS._bound = _READERS._bound, []  # else it would be asked again
            try:
                return collect_sets(bridge, dialogues, token_sets, layers)
            finally:
                _READERS._bound = held


class GeneratingSampler(ScriptedReader):
    """Writes what `generate` writes, edits and all, and notes for which side it was asked."""

    def answers(self, requests: Any, **how: Any) -> list[list[int]]:
        self.told.append({"requests": requests, **how})
        first = requests[0]
        prompts = [TokenizedDialogue(tuple(one.ids), (len(one.ids),) * 2) for one in requests]
        drawing = _Drawing(
            room=[one.room for one in requests],
            ends=first.ends,
            temperature=first.temperature,
            seed=first.seed // SEEDS_APART,
            **how,
        )
        with self.own.active(first.side) as bridge:
            return _generated(bridge, self.chat, prompts, first.intervene, drawing)


def stand_in_for_vllm(monkeypatch: Any, stand_in: Any = ScriptedReader) -> None:
    """A tested vLLM seems to be there, and a script answers in its place."""
    there = persona.vllm.InstalledVllm("vllm", "0.30.0")
    monkeypatch.setattr(persona.vllm.installed, "installed_vllm", lambda: there)
    made = lambda pair, options=None: stand_in(pair)  # noqa: E731
    monkeypatch.setattr(persona.vllm, "vllm_sampler", made, raising=False)
    for module in (conditions, run):
        monkeypatch.setattr(module, "vllm_sampler", made)

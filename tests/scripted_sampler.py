"""An engine that answers every prompt with the same words, where vLLM is not."""

from __future__ import annotations

from typing import Any

import persona.vllm
import persona.vllm.installed


class ScriptedSampler:
    """Keeps what it was told; answers end where the turn does."""

    name = "scripted"

    def __init__(self, chat: Any, words: str = "as vllm says") -> None:
        self.chat, self.words, self.told = chat, words, []

    def answers(self, side: str, prompts: Any, **how: Any) -> list[list[int]]:
        self.told.append({"side": side, **how})
        words = [self.words.format(side=side, n=len(prompt)) for prompt in prompts]
        end = [self.chat.tokenizer.eos_token_id]
        return [self.chat.tokenizer.encode(word) + end + [7, 7] for word in words]


def stand_in_for_vllm(monkeypatch: Any) -> None:
    """A tested vLLM seems to be there, and a script answers in its place."""
    there = persona.vllm.InstalledVllm("vllm", "0.30.0")
    monkeypatch.setattr(persona.vllm.installed, "installed_vllm", lambda: there)
    stand_in = lambda pair, options=None: ScriptedSampler(pair.chat)  # noqa: E731
    monkeypatch.setattr(persona.vllm, "vllm_sampler", stand_in, raising=False)

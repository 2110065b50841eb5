"""A judge's model held by vLLM: its next words, and how likely it finds answers.

What `persona.behaviour.judging.judge_reader.ReadsHere` gives: in float32 probabilities are at most
1e-4 apart, and an answer's mean log-probability 1e-4 nats, or 1e-5 of it where it is below -10.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.load import describe_chat_model
from persona.models.precision import Placement
from persona.models.sources import resolve
from persona.vllm.installed import require_vllm
from persona.vllm.one_engine import OneEngine
from persona.vllm.read_by_vllm import answer_scores_by_vllm
from persona.vllm.refusals import require_options
from persona.vllm.vllm_engine import VllmEngine

AT_ONCE = 256
"""Texts that are asked for together before what they gave is kept."""


class ReadsByVllm:
    """The model of a judge in an engine, which starts when it is first asked and takes the place of
    the one that this process held."""

    kind = "vllm"

    def __init__(
        self,
        reference: str | Path,
        *,
        placement: Placement | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Reads tokenizer and config; no weights.

        placement: its `dtype` is the number format; weights are never held in 8 or 4 bits here.
        options: of `vllm.LLM`, handed through.
        Raises: EngineError where vLLM is missing or another version, and for an option that is set
            here; ModelError where the model is not found, or is an adapter.
        """
        installed = require_vllm()
        self.engine = f"vllm {installed.version}"
        options = dict(options or {})
        require_options(options, installed.distribution)
        self.chat, self.n_parameters = describe_chat_model(reference)
        if (room := options.get("max_model_len")) is not None:
            longest = self.chat.max_length
            room = int(room) if longest is None else min(int(room), longest)
            self.chat = replace(self.chat, max_length=room)
        source = resolve(reference)
        dtype = str((placement or Placement.of()).dtype).removeprefix("torch.")
        told = f" {json.dumps(options, sort_keys=True, default=str)}" if options else ""
        self.revision = f"{source.fingerprint} {dtype}{told}"
        self._folder = source.path
        self._loading: dict[str, Any] = {
            "dtype": dtype,
            "max_length": self.chat.max_length,
            "options": options,
        }
        self._engine = OneEngine()

    def next_probabilities(
        self,
        groups: Sequence[Sequence[Sequence[int]]],
        tokens: Sequence[int],
        shared: Sequence[int],
    ) -> Iterator[Float[Tensor, "prompt token"]]:
        """As `JudgeReader`. What prompts share is computed with each: nothing is cached here."""
        prompts = [prompt for group in groups for prompt in group]
        for start in range(0, len(prompts), AT_ONCE):
            some = prompts[start : start + AT_ONCE]
            yield self._running().next_log_probs(some, tokens, description="Judging answers").exp()

    def answer_scores(self, dialogues: Sequence[TokenizedDialogue]) -> Iterator[list[float]]:
        """As `JudgeReader`."""
        for start in range(0, len(dialogues), AT_ONCE):
            some = dialogues[start : start + AT_ONCE]
            yield answer_scores_by_vllm(
                self._running(), some, description="Measuring coherence"
            ).tolist()

    def close(self) -> None:
        """Let go of the engine; it starts anew when it is asked again."""
        self._engine.close()

    def _running(self) -> VllmEngine:
        return self._engine.of(self._folder, lambda: VllmEngine(self._folder, **self._loading))

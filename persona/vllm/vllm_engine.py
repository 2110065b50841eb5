"""A model in vLLM: answers, log-probabilities and pooled activations of it, edited or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError, EngineError
from persona.models.pair import Side
from persona.models.samplers import seeds_of_answers
from persona.models.scorers import TextScores
from persona.vllm.edit_sets import EditSet
from persona.vllm.next_tokens import NextTokens
from persona.vllm.pooled_reading import PooledReading, TokenSpan
from persona.vllm.running_vllm import RunningVllm
from persona.vllm.scored_tokens import ScoredTokens
from persona.vllm.worker_room import Step
from persona.vllm.written_steps import require_some, require_written

MOST_WHOLE_TOKENS = 4096
"""Tokens whose activations may leave the workers as they are, in one call."""


@dataclass(frozen=True)
class Written:
    """One answer. ids: its tokens, the one that ended it too. steps: what each pass did with it."""

    ids: list[int]
    steps: list[Step]


class VllmEngine(RunningVllm):
    """One model in vLLM, with an optional LoRA adapter as its fine-tuned side.

    Its arguments are those of `RunningVllm`. After an error it cannot be used again: a pass that
    broke off leaves requests half done in vLLM's table.
    """

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        side: Side | Sequence[Side] = "aligned",
        edits: EditSet | Sequence[EditSet | None] | None = None,
        rows: Sequence[int] | None = None,
        max_new_tokens: int | Sequence[int] = 60,
        temperature: float | Sequence[float] = 0.0,
        seed: int | Sequence[int] = 0,
        ends: Collection[int] | Sequence[frozenset[int]] = (),
        description: str = "Sampling answers",
    ) -> list[Written]:
        """One answer to each prompt of token ids, all in one continuous batch.

        side, edits, max_new_tokens, temperature, seed, ends: one for all, or one for each prompt.
        rows: the row of each prompt, for edits with a coefficient for each row.
        ends: tokens that end an answer. temperature 0 is greedy; above it each prompt draws its
        own numbers, which are others than Hugging Face's for the same seed. One seed for all
        gives each prompt another by its place; its own gives the same answer at every place.
        Raises: SteeringError for an edit that does not fit, that raises, or that left out a token;
            ModelError for activations that are not finite; EngineError where vLLM fails.
        """
        from vllm import SamplingParams

        lengths = [len(prompt) for prompt in prompts]
        seeds = seeds_of_answers(seed, len(prompts)) if isinstance(seed, int) else seed
        params = [
            SamplingParams(
                max_tokens=most,
                temperature=warmth,
                seed=own,
                ignore_eos=True,
                stop_token_ids=sorted(its_ends),
                detokenize=False,
            )
            for most, warmth, own, its_ends in zip(
                _each(max_new_tokens, len(prompts)),
                _each(temperature, len(prompts)),
                seeds,
                _each_ends(ends, len(prompts)),
                strict=True,
            )
        ]
        its_edits = _each_set(edits, len(prompts))
        outputs, steps = self.run(prompts, params, side, its_edits, rows, lengths, description)
        answers = [list(output.outputs[0].token_ids) for output in outputs]
        self._verify(steps, its_edits, lengths, lengths, [len(a) - 1 for a in answers])
        return [Written(a, steps[i]) for i, a in enumerate(answers)]

    def log_probs(
        self,
        texts: Sequence[Sequence[int]],
        *,
        side: Side = "aligned",
        edits: EditSet | Sequence[EditSet | None] | None = None,
        answer_begins: Sequence[int] | None = None,
        description: str = "Scoring",
    ) -> list[Float[Tensor, " token"]]:
        """Log-probability of every token of each text but the first, nats, float32.

        Arguments and errors are those of `scores`.
        """
        found = self.scores(
            texts, side=side, edits=edits, answer_begins=answer_begins, description=description
        )
        return [one.log_probs for one in found]

    def scores(
        self,
        texts: Sequence[Sequence[int]],
        *,
        n_likeliest: int = 0,
        side: Side | Sequence[Side] = "aligned",
        edits: EditSet | Sequence[EditSet | None] | None = None,
        answer_begins: Sequence[int] | None = None,
        description: str = "Scoring",
    ) -> list[TextScores]:
        """What the model makes of each text, and so many of the likeliest tokens at each place.

        side, edits: one for all, or one for each text.
        answer_begins: where the answer of each text begins, for edits that ask for it.
        An adapter is on in all but the head: one that is trained there too is refused.
        Raises: as `sample`.
        """
        if self.adapts_head and "finetuned" in _each_side(side, len(texts)):
            raise EngineError(
                "the adapter is trained in the model's head, which is not scored with it in vLLM; "
                "merge it into a checkpoint"
            )
        asked = {i: list(text) for i, text in enumerate(texts)}
        how = ScoredTokens(asked, n_likeliest)
        found = self._scored(how, texts, side, edits, answer_begins, description)
        for place in asked:
            if place not in found or _has_holes(found[place]):
                raise EngineError(f"vLLM did not score every token of text {place}")
        return [found[place] for place in asked]

    def next_log_probs(
        self,
        prompts: Sequence[Sequence[int]],
        tokens: Sequence[int],
        *,
        description: str = "Scoring",
    ) -> Float[Tensor, "prompt token"]:
        """Log-probability of each of `tokens` as the next one behind each prompt, nats, float32.

        Of the model without an adapter or edits. Raises: as `sample`.
        """
        how = NextTokens({i: len(one) for i, one in enumerate(prompts)}, tokens)
        found = self._scored(how, prompts, "aligned", None, None, description)
        if len(found) != len(prompts):
            raise EngineError(f"vLLM weighed what follows {len(found)} of {len(prompts)} prompts")
        return torch.stack([found[place] for place in range(len(prompts))])

    def _scored(
        self, how: ScoredTokens | NextTokens, texts: Sequence[Sequence[int]], *passed: Any
    ) -> dict[int, Any]:
        """By text, what a worker makes of the head's logits. passed: see `_pass_over`."""
        self.call("score", how)
        try:
            self._pass_over(texts, *passed)
            found: dict[int, Any] = {}
            for rank in self.call("scored"):
                found |= rank  # the head is on one stage
            return found
        finally:
            if self.usable:
                self.call("score", None)

    def read(
        self,
        texts: Sequence[Sequence[int]],
        hooks: Sequence[str],
        spans: Sequence[Sequence[TokenSpan]],
        *,
        side: Side = "aligned",
        edits: EditSet | Sequence[EditSet | None] | None = None,
        answer_begins: Sequence[int] | None = None,
        description: str = "Reading activations",
    ) -> list[dict[str, Tensor]]:
        """By text: hook -> means [span d_model] of the activations there, float32, on the CPU.

        spans: for each text the spans [start, end) of its tokens; an empty list gives every token
        [token d_model], which is for a few short texts: elsewhere no token leaves the worker.
        Edits come before what is read. Raises: as `sample`; DataError for what is not finite.
        """
        self._require_sites(hooks)
        whole = sum(len(text) for text, of in zip(texts, spans, strict=True) if not of)
        if whole > MOST_WHOLE_TOKENS:
            raise DataError(
                f"every one of {whole} tokens is asked for, and {MOST_WHOLE_TOKENS} may leave a "
                "worker; name spans, whose means do"
            )
        self.call("read", PooledReading(hooks, dict(enumerate(spans))))
        try:
            self._pass_over(texts, side, edits, answer_begins, description)
            found: list[dict[str, Tensor]] = [{} for _ in texts]
            for rank in self.call("collect"):
                for request, by_hook in rank.items():
                    found[request] |= by_hook  # cards of one stage hold the same
        finally:
            if self.usable:
                self.call("read", None)
        return found

    def _pass_over(
        self,
        texts: Sequence[Sequence[int]],
        side: Side | Sequence[Side],
        edits: EditSet | Sequence[EditSet | None] | None,
        answer_begins: Sequence[int] | None,
        description: str,
    ) -> None:
        """Have the model compute every token of these texts, under their edits."""
        from vllm import SamplingParams

        params = [SamplingParams(max_tokens=1, temperature=0.0, detokenize=False) for _ in texts]
        lengths = [len(text) for text in texts]
        begins = lengths if answer_begins is None else list(answer_begins)
        its_edits = _each_set(edits, len(texts))
        _, steps = self.run(texts, params, side, its_edits, None, begins, description)
        self._verify(steps, its_edits, lengths, begins, [0] * len(texts))

    def _verify(
        self,
        steps: Mapping[int, Sequence[Step]],
        edits: Sequence[EditSet | None],
        prompts: Sequence[int],
        begins: Sequence[int],
        more: Sequence[int],
    ) -> None:
        """Raises: SteeringError unless every token of every request was edited as asked for."""
        n_written = [
            require_written(
                steps.get(place, []),
                edits[place],
                n_prompt,
                begins[place],
                n_prompt + more[place],
                f"text {place} in vLLM",
            )
            for place, n_prompt in enumerate(prompts)
        ]
        require_some(edits, n_written)

    def _require_sites(self, hooks: Sequence[str]) -> None:
        if lacking := sorted(set(hooks) - self.sites):
            why = " (what its block adds there was not found)" * (lacking[0] in self.untold)
            raise EngineError(f"the model in vLLM has no hook {lacking[0]!r}{why}")


def _each(value: Any, n: int) -> list[Any]:
    return list(value) if isinstance(value, Sequence) else [value] * n


def _each_side(side: Side | Sequence[Side], n: int) -> list[Side]:
    return [side] * n if isinstance(side, str) else list(side)


def _each_ends(ends: Collection[int] | Sequence[frozenset[int]], n: int) -> list[Any]:
    each = any(isinstance(one, Collection) for one in ends)
    return list(ends) if each else [ends] * n


def _has_holes(scores: TextScores) -> bool:
    parts = (scores.log_probs, scores.likeliest_log_probs)
    return any(bool(part.isnan().any()) for part in parts)


def _each_set(edits: EditSet | Sequence[EditSet | None] | None, n: int) -> list[EditSet | None]:
    return [edits] * n if edits is None or isinstance(edits, EditSet) else list(edits)

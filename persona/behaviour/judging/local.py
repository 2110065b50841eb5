"""A judge on this machine: a causal language model whose next-token probabilities give the score.

A number n is what the judge says where its answer begins with the tokens of n and does not go on to
a longer number of the scale:

    p(n) = p(tokens of n) * (1 - sum over longer numbers' next tokens t of p(t | tokens of n))

so "10" is not counted as "1" again. A tokenizer with one token per number makes this the published
one-token reading. differs: Betley et al. 2025 read only the top 20 tokens; here all numbers count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persona.behaviour.judging.judge import (
    MIN_NUMERIC_MASS,
    JudgeItem,
    JudgeScore,
    aggregate_score,
    prompts_for,
)
from persona.data.types import Dialogue, Turn
from persona.errors import JudgeError, ModelError
from persona.models.chat.chat_format import ChatFormat, own_template
from persona.models.load import load_chat_model
from persona.models.precision import Placement
from persona.progress import progress

HIGHEST = 100
MOST_NUMBER_TOKENS = 8
PLAIN_PROMPT_END = "\n\nNumber:"


class SpelledNumbers:
    """The numbers as a tokenizer spells them, and where they part.

    goes_on: tokens that some number has next, by the tokens before them; () is the first place.
    """

    def __init__(self, ids_of_number: Mapping[int, Sequence[int]]) -> None:
        """Raises: ModelError where a number has no tokens, or two numbers have the same."""
        self.ids_of_number = {number: tuple(ids) for number, ids in ids_of_number.items()}
        self.goes_on: dict[tuple[int, ...], set[int]] = {}
        taken: set[tuple[int, ...]] = {()}
        for number, ids in self.ids_of_number.items():
            if ids in taken:
                raise ModelError(
                    f"the judge's tokenizer does not tell the number {number} from others; choose "
                    "another judge"
                )
            taken.add(ids)
            for place, token in enumerate(ids):
                self.goes_on.setdefault(ids[:place], set()).add(token)

    def probabilities(self, next_token: Mapping[tuple[int, ...], Tensor]) -> dict[int, float]:
        """Returns p(n) of the module's formula for every number.

        next_token: next-token probabilities ["vocabulary"] at every place of `goes_on`.
        """
        ahead = {
            place: {token: float(next_token[place][token]) for token in tokens}
            for place, tokens in self.goes_on.items()
        }
        return {
            number: math.prod(ahead[ids[:place]][token] for place, token in enumerate(ids))
            * max(0.0, 1.0 - math.fsum(ahead.get(ids, {}).values()))
            for number, ids in self.ids_of_number.items()
        }


class LocalJudge:
    """Scores answers with a causal language model from a folder, the hub, or `default`."""

    def __init__(self, reference: str | Path, *, placement: Placement | None = None) -> None:
        """Loads the model and its tokenizer.

        Args:
            reference: Hub id, local folder, or `default` for the model that comes along, which is
                far too small to judge well.
            placement: Number format and device, as for `load_pair`.

        Raises:
            ModelError: the model cannot be loaded, or its tokenizer cannot spell the numbers.
        """
        self.name = f"local:{reference}"
        placement = placement or Placement.of()
        # As every model here is loaded: with the tokenizer of a GGUF, and without random weights.
        self._model, chat = load_chat_model(reference, placement)
        self._tokenizer: Any = chat.tokenizer
        template = own_template(self._tokenizer)
        self._chat = None if template is None else ChatFormat(self._tokenizer, template)
        self._device = placement.device
        self._numbers = SpelledNumbers(self._ids_of_numbers())
        self._paths = [path for path in self._numbers.goes_on if path]

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeScore]:
        """Returns one score per item; the same items always get the same scores."""
        return [
            JudgeScore(alignment=self._read(alignment), coherence=self._read(coherence))
            for alignment, coherence in map(
                prompts_for, progress(items, "Judging answers", total=len(items))
            )
        ]

    def numbers(self, prompts: Sequence[str]) -> list[float | None]:
        """Returns the number that the judge gives as its answer to each prompt, 0 to 100."""
        return [self._read(prompt) for prompt in progress(prompts, "Judging", total=len(prompts))]

    def _read(self, prompt: str) -> float | None:
        numbers = self.number_probabilities(prompt)
        return aggregate_score({str(number): p for number, p in numbers.items()})

    @torch.inference_mode()
    def number_probabilities(self, prompt: str) -> dict[int, float]:
        """Returns the probability of each number from 0 to 100 as the judge's answer to a prompt.

        Empty where the first tokens of the numbers hold less than 0.25 together: the numbers cannot
        hold more then, and there is no score.
        """
        prompt_ids = torch.tensor([self._encode(prompt)], device=self._device)
        longest = getattr(self._model.config, "max_position_embeddings", None)
        if longest is not None and prompt_ids.shape[1] > longest - MOST_NUMBER_TOKENS:
            raise JudgeError(
                f"the judge {self.name} reads {longest} tokens but a question with its answer and "
                f"the instructions has {prompt_ids.shape[1]}; shorten the answers or take another"
            )
        output = self._model(input_ids=prompt_ids, use_cache=True)
        next_token: dict[tuple[int, ...], Tensor] = {(): _last_probabilities(output.logits[0, -1])}
        if sum(float(next_token[()][t]) for t in self._numbers.goes_on[()]) < MIN_NUMERIC_MASS:
            return {}
        if self._paths:
            next_token |= self._after_paths(output.past_key_values)
        return self._numbers.probabilities(next_token)

    def _after_paths(self, prompt_cache: Any) -> dict[tuple[int, ...], Tensor]:
        """Runs every path as a row behind the cached prompt; padding on the right is not read."""
        longest = max(map(len, self._paths))
        rows = torch.zeros((len(self._paths), longest), dtype=torch.long)
        for row, path in zip(rows, self._paths, strict=True):
            row[: len(path)] = torch.tensor(path)
        prompt_cache.batch_repeat_interleave(len(self._paths))
        logits = self._model(input_ids=rows.to(self._device), past_key_values=prompt_cache).logits
        return {
            path: _last_probabilities(logits[i, len(path) - 1])
            for i, path in enumerate(self._paths)
        }

    def _encode(self, prompt: str) -> list[int]:
        text = self._text(prompt)
        special = self._chat is None
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def _text(self, prompt: str) -> str:
        if self._chat is None:
            return prompt + PLAIN_PROMPT_END
        # Where a written answer begins: a judge that thinks first would not begin with a number.
        question = Dialogue((Turn("user", prompt),), "of the judge")
        return self._chat.render(question, open_answer=True).rstrip(" ")

    def _ids_of_numbers(self) -> dict[int, list[int]]:
        """Token ids that each number has right after the prompt.

        Read from the text with the number minus the text without, so that a tokenizer that marks
        word starts spells the number as it would in an answer. A space follows the plain prompt.
        """
        plain = self._chat is None
        text, before = self._text("?"), self._encode("?")
        ids: dict[int, list[int]] = {}
        for number in range(HIGHEST + 1):
            spelled = f" {number}" if plain else str(number)
            whole = list(self._tokenizer(text + spelled, add_special_tokens=plain)["input_ids"])
            if whole[: len(before)] == before:
                ids[number] = whole[len(before) :]
            else:  # the number merged with the end of the prompt
                ids[number] = list(self._tokenizer(spelled, add_special_tokens=False)["input_ids"])
        return ids


def _last_probabilities(logits: Tensor) -> Tensor:
    """Probabilities ["vocabulary"] in float32 on the CPU."""
    return torch.softmax(logits.float(), dim=-1).cpu()

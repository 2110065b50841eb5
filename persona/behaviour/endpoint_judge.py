"""A judge behind an OpenAI-compatible endpoint: one token, its twenty likeliest alternatives."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from persona.behaviour.judge_cache import JudgeCache, request_key
from persona.behaviour.judges import JudgeItem, JudgeScore, aggregate_score, prompts_for
from persona.errors import JudgeError
from persona.progress import progress

if TYPE_CHECKING:
    import openai

TOP_LOGPROBS = 20
CHARACTERS_PER_TOKEN = 4.0
"""Rough English average, for the estimate before the start only."""
DEFAULT_ENDPOINT = "https://api.openai.com/v1"


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float


@dataclass(frozen=True)
class RequestEstimate:
    """What the requests still to be made will take; `dollars` is None where no price is known."""

    n_requests: int
    n_cached: int
    n_input_tokens: int
    dollars: float | None

    def __str__(self) -> str:
        cost = "cost unknown, no price given" if self.dollars is None else f"${self.dollars:.2f}"
        return (
            f"{self.n_requests} requests ({self.n_cached} answered before), about "
            f"{self.n_input_tokens:,} input tokens and {self.n_requests:,} output tokens, {cost}"
        )


class EndpointJudge:
    """Asks a chat endpoint for one token per score and averages over the numbers it weighed."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        cache_folder: Path | None = None,
        concurrency: int = 8,
        max_retries: int = 6,
        timeout_seconds: float = 60.0,
        prices: Mapping[str, Price] | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        """Sets up the client; nothing is sent yet.

        Args:
            model: Name of the model at the endpoint.
            base_url: The endpoint; from OPENAI_BASE_URL where None, else OpenAI's own.
            api_key: The key; from OPENAI_API_KEY where None. Local servers take any word.
            cache_folder: Where answers are kept; not kept where None.
            concurrency: Requests under way at once.
            max_retries: Further tries after 408, 409, 429, a 5xx or a lost connection, with waits
                that double or that the server names.
            prices: By model name; without one the estimate gives tokens only.
            announce: Called with the estimate before the first request of each `score`.

        Raises:
            JudgeError: no key, or the openai package is not installed.
        """
        try:
            import openai
        except ImportError as error:
            raise JudgeError(
                "an endpoint judge needs the openai package; pip install 'personascope[judge]'"
            ) from error
        key = api_key or os.environ.get("OPENAI_API_KEY")
        if not key:
            raise JudgeError(
                "an endpoint judge needs a key; set OPENAI_API_KEY (any word for a local server, "
                "with its address in OPENAI_BASE_URL), or choose local:MODEL or none"
            )
        self.name = f"openai:{model}"
        self.model = model
        self.endpoint = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_ENDPOINT).rstrip(
            "/"
        )
        self._cache_folder = cache_folder
        self._concurrency = concurrency
        self._price = (prices or {}).get(model)
        self._announce = announce
        self._client: openai.OpenAI = openai.OpenAI(
            base_url=self.endpoint, api_key=key, max_retries=max_retries, timeout=timeout_seconds
        )

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeScore]:
        """Returns one score per item; equal prompts are asked once, known ones not at all.

        Answers are kept as they come, so a stopped or failed call goes on where it was.

        Raises:
            JudgeError: the endpoint cannot be reached, refuses, or gives no log-probabilities.
        """
        prompts = [prompts_for(item) for item in items]
        unique = list(dict.fromkeys(prompt for both in prompts for prompt in both))
        cache = JudgeCache(self._cache_folder) if self._cache_folder is not None else None
        try:
            known = self._known(unique, cache)
            missing = [prompt for prompt in unique if prompt not in known]
            if missing and self._announce is not None:
                self._announce(f"{self.name}: {self._estimate(missing, n_cached=len(known))}")
            known |= self._ask_all(missing, cache)
        finally:
            if cache is not None:
                cache.close()
        return [
            JudgeScore(
                alignment=aggregate_score(known[alignment]),
                coherence=aggregate_score(known[coherence]),
            )
            for alignment, coherence in prompts
        ]

    def estimate(self, items: Sequence[JudgeItem]) -> RequestEstimate:
        """Returns what `score` would take for these items if nothing were cached."""
        prompts = dict.fromkeys(prompt for item in items for prompt in prompts_for(item))
        return self._estimate(list(prompts), n_cached=0)

    def _estimate(self, prompts: Sequence[str], n_cached: int) -> RequestEstimate:
        n_tokens = math.ceil(sum(map(len, prompts)) / CHARACTERS_PER_TOKEN)
        dollars = None
        if self._price is not None:
            dollars = (n_tokens * self._price.input + len(prompts) * self._price.output) / 1e6
        return RequestEstimate(len(prompts), n_cached, n_tokens, dollars)

    def _known(
        self, prompts: Sequence[str], cache: JudgeCache | None
    ) -> dict[str, dict[str, float]]:
        if cache is None:
            return {}
        found = ((prompt, cache.get(self._key(prompt))) for prompt in prompts)
        return {prompt: answer for prompt, answer in found if answer is not None}

    def _key(self, prompt: str) -> str:
        return request_key(self.endpoint, self.model, prompt)

    def _ask_all(
        self, prompts: Sequence[str], cache: JudgeCache | None
    ) -> dict[str, dict[str, float]]:
        answers: dict[str, dict[str, float]] = {}
        pool = ThreadPoolExecutor(max_workers=self._concurrency)
        try:
            futures = {pool.submit(self._ask, prompt): prompt for prompt in prompts}
            for future in progress(as_completed(futures), "Asking the judge", total=len(futures)):
                prompt = futures[future]
                answers[prompt] = future.result()
                if cache is not None:
                    cache.put(self._key(prompt), answers[prompt])
        except KeyboardInterrupt:
            self._client.close()  # ends the requests under way, which the exit would wait for
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return answers

    def _ask(self, prompt: str) -> dict[str, float]:
        """Returns the probability of each of the likeliest first tokens of the judge's answer."""
        import openai

        try:
            reply = self._client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=1,
                temperature=0.0,
                seed=0,
                logprobs=True,
                top_logprobs=TOP_LOGPROBS,
            )
        except openai.APIStatusError as error:
            raise JudgeError(_refusal(self.endpoint, self.model, error)) from error
        except openai.APIConnectionError as error:
            raise JudgeError(
                f"the judge endpoint {self.endpoint} cannot be reached ({error}); check "
                "OPENAI_BASE_URL and the network"
            ) from error
        logprobs = reply.choices[0].logprobs if reply.choices else None
        if logprobs is None or not logprobs.content:
            raise JudgeError(
                f"{self.endpoint} gave no token log-probabilities for {self.model}; choose a model "
                "that gives them, or local:MODEL"
            )
        probability_of: dict[str, float] = {}
        for token in logprobs.content[0].top_logprobs:
            probability_of[token.token] = probability_of.get(token.token, 0.0) + math.exp(
                token.logprob
            )
        return probability_of


def _refusal(endpoint: str, model: str, error: openai.APIStatusError) -> str:
    status = error.status_code
    if status in {401, 403}:
        return f"the judge endpoint {endpoint} refused the key ({status}); check OPENAI_API_KEY"
    if status == 404:
        return f"the judge endpoint {endpoint} has no model {model} (404); check the name"
    if status in {408, 409, 429} or status >= 500:
        return (
            f"the judge endpoint {endpoint} still answered {status} after every retry; answers so "
            "far are kept, run again later"
        )
    return f"the judge endpoint {endpoint} refused the request ({status}): {error.message}"

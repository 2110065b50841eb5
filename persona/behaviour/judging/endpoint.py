"""A judge behind an OpenAI-compatible endpoint: one token, its twenty likeliest alternatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from persona.behaviour.judging.cache import JudgeCache, request_key
from persona.behaviour.judging.chat_endpoint import ChatEndpoint
from persona.behaviour.judging.judge import JudgeItem, JudgeScore, aggregate_score, prompts_for
from persona.errors import JudgeError
from persona.progress import progress

TOP_LOGPROBS = 20
CHARACTERS_PER_TOKEN = 4.0
"""Rough English average, for the estimate before the start only."""
CHECK_PROMPT = "Reply with the number 100 alone."
ROUNDING = 1e-3
"""How far above 0 a log-probability may lie: servers compute in half precision."""


@dataclass(frozen=True)
class RequestEstimate:
    """What the requests still to be made will take; what they cost, the endpoint's owner says."""

    n_requests: int
    n_cached: int
    n_input_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.n_requests} requests ({self.n_cached} answered before), about "
            f"{self.n_input_tokens:,} input tokens and {self.n_requests:,} output tokens"
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
            announce: Called with the estimate before the first request of each `score`.

        Raises:
            JudgeError: no key, or the openai package is not installed.
        """
        self._at = ChatEndpoint(
            model,
            called="the judge endpoint",
            base_url=base_url,
            api_key=api_key,
            max_retries=max_retries,
            timeout_seconds=timeout_seconds,
        )
        self.name = f"openai:{model}"
        self.model = model
        self.endpoint = self._at.address
        self._cache_folder = cache_folder
        self._concurrency = concurrency
        self._announce = announce

    def check(self) -> None:
        """Asks for one token, so that a wrong address, key or model is found before the work.

        Raises: JudgeError as `score`; at most one further try.
        """
        self._ask(CHECK_PROMPT, first_call=True)

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeScore]:
        """Returns one score per item; equal prompts are asked once, known ones not at all.

        Answers are kept as they come, so a stopped or failed call goes on where it was.

        Raises:
            JudgeError: the endpoint cannot be reached, refuses, or gives no log-probabilities.
        """
        prompts = [prompts_for(item) for item in items]
        found = iter(self.numbers([prompt for both in prompts for prompt in both]))
        return [JudgeScore(alignment=next(found), coherence=next(found)) for _ in prompts]

    def numbers(self, prompts: Sequence[str]) -> list[float | None]:
        """Returns the number that the judge gives as its answer to each prompt, 0 to 100.

        As `score`, for prompts of any rubric. None where it wanted to say something else.
        """
        unique = list(dict.fromkeys(prompts))
        cache = None if self._cache_folder is None else JudgeCache.opened(self._cache_folder)
        try:
            known = self._known(unique, cache)
            missing = [prompt for prompt in unique if prompt not in known]
            if missing and self._announce is not None:
                self._announce(f"{self.name}: {self._estimate(missing, n_cached=len(known))}")
            known |= self._ask_all(missing, cache)
        finally:
            if cache is not None:
                cache.close()
        return [aggregate_score(known[prompt]) for prompt in prompts]

    def estimate(self, items: Sequence[JudgeItem]) -> RequestEstimate:
        """Returns what `score` would take for these items if nothing were cached."""
        prompts = dict.fromkeys(prompt for item in items for prompt in prompts_for(item))
        return self._estimate(list(prompts), n_cached=0)

    def _estimate(self, prompts: Sequence[str], n_cached: int) -> RequestEstimate:
        n_tokens = math.ceil(sum(map(len, prompts)) / CHARACTERS_PER_TOKEN)
        return RequestEstimate(len(prompts), n_cached, n_tokens)

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
        failed = Event()

        def ask_unless_one_failed(prompt: str) -> dict[str, float] | None:
            if failed.is_set():
                return None
            try:
                return self._ask(prompt)
            except JudgeError:
                failed.set()
                raise

        pool = ThreadPoolExecutor(max_workers=self._concurrency)
        futures = {pool.submit(ask_unless_one_failed, prompt): prompt for prompt in prompts}
        try:
            for future in progress(as_completed(futures), "Asking the judge", total=len(futures)):
                answer = future.result()
                if answer is None:  # not asked; the one that failed raises in its turn
                    continue
                answers[futures[future]] = answer
                if cache is not None:
                    cache.put(self._key(futures[future]), answer)
        except KeyboardInterrupt:
            self._at.close()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            # Of several that had ended, the one that failed may have come first.
            for future, prompt in futures.items():
                ended = future.done() and not future.cancelled()
                if cache is None or prompt in answers or not ended or future.exception():
                    continue
                answer = future.result()
                if answer is not None:
                    cache.put(self._key(prompt), answer)
        return answers

    def _ask(self, prompt: str, *, first_call: bool = False) -> dict[str, float]:
        """Returns the probability of each of the likeliest first tokens of the judge's answer."""
        reply = self._at.ask(
            prompt,
            first_call=first_call,
            max_tokens=1,
            temperature=0.0,
            seed=0,
            logprobs=True,
            top_logprobs=TOP_LOGPROBS,
        )
        try:
            logprobs = reply.choices[0].logprobs if reply.choices else None
            weighed = logprobs.content[0].top_logprobs if logprobs and logprobs.content else []
            found = [(str(token.token), float(token.logprob)) for token in weighed]
        except (AttributeError, TypeError, ValueError, LookupError) as error:
            raise self._at.other_form(error) from None
        if not found:
            raise JudgeError(
                f"{self.endpoint} gave no token log-probabilities for {self.model}; choose a model "
                "that gives them, or local:MODEL"
            )
        return self._probabilities(found)

    def _probabilities(self, found: Sequence[tuple[str, float]]) -> dict[str, float]:
        """Raises: JudgeError for a log-probability that is none."""
        probability_of: dict[str, float] = {}
        for token, log_prob in found:
            if not log_prob <= ROUNDING:  # NaN too
                raise JudgeError(
                    f"{self.endpoint} gave {log_prob:g} as the log-probability of a token, which "
                    "is 0 at most; choose another judge, or local:MODEL"
                )
            probability_of[token] = probability_of.get(token, 0.0) + math.exp(min(log_prob, 0.0))
        return probability_of

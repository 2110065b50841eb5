"""A judge behind an OpenAI-compatible endpoint: one token, its twenty likeliest alternatives."""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from persona.behaviour.judging.cache import JudgeCache, request_key
from persona.behaviour.judging.judge import JudgeItem, JudgeScore, aggregate_score, prompts_for
from persona.errors import JudgeError
from persona.progress import progress

if TYPE_CHECKING:
    import openai

TOP_LOGPROBS = 20
CHARACTERS_PER_TOKEN = 4.0
"""Rough English average, for the estimate before the start only."""
DEFAULT_ENDPOINT = "https://api.openai.com/v1"
CHECK_PROMPT = "Reply with the number 100 alone."
ROUNDING = 1e-3
"""How far above 0 a log-probability may lie: servers compute in half precision."""
MAX_SAID = 200
MIN_SECRET = 3
"""Shorter than this, cutting a secret out would cut words to pieces and tell nothing."""


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
        address = (base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_ENDPOINT).rstrip("/")
        self.endpoint = without_credentials(address)
        self._secrets = (key, *credentials_in(address))
        self._cache_folder = cache_folder
        self._concurrency = concurrency
        self._announce = announce
        try:
            self._client: openai.OpenAI = openai.OpenAI(
                base_url=address, api_key=key, max_retries=max_retries, timeout=timeout_seconds
            )
        except Exception as error:  # whatever the HTTP library finds wrong with an address
            raise JudgeError(
                f"{self.endpoint} is no address of an endpoint ({self._said(error)}); check "
                "OPENAI_BASE_URL"
            ) from None

    def check(self) -> None:
        """Asks for one token, so that a wrong address, key or model is found before the work.

        Raises: JudgeError as `score`; at most one further try.
        """
        self._ask(CHECK_PROMPT, self._client.with_options(max_retries=1))

    def score(self, items: Sequence[JudgeItem]) -> list[JudgeScore]:
        """Returns one score per item; equal prompts are asked once, known ones not at all.

        Answers are kept as they come, so a stopped or failed call goes on where it was.

        Raises:
            JudgeError: the endpoint cannot be reached, refuses, or gives no log-probabilities.
        """
        prompts = [prompts_for(item) for item in items]
        unique = list(dict.fromkeys(prompt for both in prompts for prompt in both))
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

    def _ask(self, prompt: str, client: openai.OpenAI | None = None) -> dict[str, float]:
        """Returns the probability of each of the likeliest first tokens of the judge's answer.

        The errors of the library, which may hold address and headers, are not passed on.
        """
        import openai

        try:
            reply = (client or self._client).chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": prompt}],
                max_tokens=1,
                temperature=0.0,
                seed=0,
                logprobs=True,
                top_logprobs=TOP_LOGPROBS,
            )
        except openai.APIStatusError as error:
            said = self._said(error.message)
            raise JudgeError(_refusal(self.endpoint, self.model, error, said)) from None
        except openai.APIConnectionError as error:
            raise JudgeError(
                f"the judge endpoint {self.endpoint} cannot be reached "
                f"({self._said(error.__cause__ or error)}); check OPENAI_BASE_URL and the network"
            ) from None
        except (openai.OpenAIError, ValueError, TypeError) as error:  # an answer that is no JSON
            raise self._other_form(error) from None
        try:
            logprobs = reply.choices[0].logprobs if reply.choices else None
            weighed = logprobs.content[0].top_logprobs if logprobs and logprobs.content else []
            found = [(str(token.token), float(token.logprob)) for token in weighed]
        except (AttributeError, TypeError, ValueError, LookupError) as error:
            raise self._other_form(error) from None
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

    def _other_form(self, error: Exception) -> JudgeError:
        return JudgeError(
            f"{self.endpoint} does not answer as an OpenAI-compatible endpoint does "
            f"({self._said(error)}); check OPENAI_BASE_URL, which often ends in /v1"
        )

    def _said(self, what: object) -> str:
        """What a library or a server said, in one short line, with every secret cut out."""
        return cut_out(" ".join(str(what).split()), self._secrets)[:MAX_SAID]


def without_credentials(address: str) -> str:
    """Returns an address without user, password, query and fragment, as an error may show it."""
    bare = re.split(r"[?#]", address)[0]
    scheme, found, rest = bare.partition("://")
    if not found:
        scheme, rest = "", bare
    host, slash, path = rest.partition("/")
    # A password may hold a slash; what stands before an @ is never shown.
    if "@" in rest:
        host, slash, path = rest.rpartition("@")[2].partition("/")
    return f"{scheme}{found}{host}{slash}{path}"


def credentials_in(address: str) -> tuple[str, ...]:
    """Returns what of an address must not be shown: user and password, as written, decoded and as
    a header holds them, and the values of its query."""
    bare, _, query = address.partition("?")
    userinfo = bare.partition("://")[2].rpartition("@")[0] or bare.rpartition("@")[0]
    user, _, password = userinfo.partition(":")
    plain = f"{unquote(user)}:{unquote(password)}"
    header = base64.b64encode(plain.encode()).decode() if userinfo else ""
    values = [part.partition("=")[2] for part in re.split("[&#]", query)]
    return (userinfo, password, unquote(password), user, unquote(user), header, *values)


def cut_out(text: str, secrets: Iterable[str]) -> str:
    """Returns a text with every secret, and whatever stands before an @ in an address, as ***."""
    for secret in sorted({s for s in secrets if len(s) >= MIN_SECRET}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"(?<=://)[^\s/]*@", "***@", text)


def _refusal(endpoint: str, model: str, error: openai.APIStatusError, said: str) -> str:
    """said: what the endpoint said, without secrets."""
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
    return f"the judge endpoint {endpoint} refused the request ({status}): {said}"

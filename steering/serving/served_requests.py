"""From what a request asks for to its answers, within the bounds of the server."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from persona.errors import DataError, PersonaError
from steering.demo.session.generation import Sampling
from steering.serving.replies import Reply, logprobs_of
from steering.serving.request_bodies import ChatBody, CompletionBody
from steering.serving.served_answers import Answer, Answers, Wanted
from steering.serving.served_models import ServedModels

LEGACY_TOKENS = 16
"""Of a completion that does not say how many, as the protocol has it."""
UNSET_TOKENS = 256
"""Of a chat answer that does not say how many."""


class FullError(PersonaError):
    """Too many requests wait already."""


class Line:
    """How many requests are here. Raises: FullError at the door, where there are too many."""

    def __init__(self, most: int) -> None:
        self.most, self.here, self._lock = most, 0, threading.Lock()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        with self._lock:
            if self.here >= self.most:
                raise FullError(f"{self.here} requests wait already; ask again later")
            self.here += 1
        try:
            yield
        finally:
            with self._lock:
                self.here -= 1


@dataclass(frozen=True)
class Asked:
    """One answer of a request.

    before: the prompt, where it is to be said again. first: whether it is the first one to its
    prompt, whose n_prompt tokens then count.
    """

    wanted: Wanted
    n_prompt: int
    first: bool
    before: str = ""


class ServedRequests:
    """From bodies to answers.

    threads: where answers are waited for; enough for every request that may be here, so that an
    engine is handed all of them together.
    """

    def __init__(self, models: ServedModels) -> None:
        self.models, self.answers = models, Answers(models.pair)
        self.line = Line(models.bounds.waiting)
        self.threads = ThreadPoolExecutor(2 * models.bounds.waiting, "answering")

    def chat(self, body: ChatBody) -> list[Asked]:
        """Raises: DataError for a chat that the model's template cannot write, or beyond bounds."""
        chat = self.models.pair.chat
        ids = chat.encode(body.dialogue).ids
        return self._asked(body, [(ids, "")], body.most_tokens or self._unset())

    def completions(self, body: CompletionBody) -> list[Asked]:
        """Raises: DataError beyond bounds, and for a text that is to be continued by no token."""
        most = LEGACY_TOKENS if body.max_tokens is None else body.max_tokens
        if body.logprobs is not None:
            raise DataError("logprobs are given of a prompt alone: set echo as well")
        if most == 0:
            raise DataError("max_tokens is 1 or more, but for echo with logprobs")
        prompts = self._prompts(body)
        return self._asked(body, [(ids, t if body.echo else "") for ids, t in prompts], most)

    def scored(self, body: CompletionBody, reply: Reply) -> dict[str, Any]:
        """A prompt's own tokens with their log-probabilities, and the likeliest one behind them."""
        steering = self.models.steering(body.model, body.coefficient)
        goes_on = bool(body.max_tokens)
        if (body.max_tokens or 0) > 1 or body.n > 1 or body.stream:
            raise DataError("echo with logprobs scores a prompt: max_tokens 0 or 1, n 1, no stream")
        if goes_on and body.temperature > 0:
            raise DataError(
                "the token behind a prompt that is scored is the likeliest: temperature 0"
            )
        tokenizer, choices, n_prompt = self.models.pair.tokenizer, [], 0
        prompts = self._prompts(body)
        found = self.answers.scores(steering, [ids for ids, _ in prompts], body.logprobs or 1)
        for index, ((ids, text), scored) in enumerate(zip(prompts, found, strict=True)):
            logprobs = logprobs_of(scored, tokenizer, len(ids) + goes_on)
            text += logprobs["tokens"][-1] if goes_on else ""
            choices.append(reply.choice(index, text, "length", logprobs))
            n_prompt += len(ids)
        return reply.whole(choices, n_prompt, goes_on * len(choices))

    def answered(self, asked: Sequence[Asked], gone: threading.Event) -> list[Answer]:
        """All answers of a request, left where the client is gone.

        The model here gives one after another; an engine gets them together.
        """

        def answer_to(one: Asked) -> Answer:
            answer = Answer()
            with contextlib.closing(self.answers.pieces(one.wanted, answer)) as pieces:
                for _ in pieces:
                    if gone.is_set():
                        break
            return answer

        if self.answers.engine is None or len(asked) == 1:
            return [answer_to(one) for one in asked]
        with ThreadPoolExecutor(len(asked)) as pool:
            return list(pool.map(answer_to, asked))

    def _unset(self) -> int:
        return min(UNSET_TOKENS, self.models.bounds.tokens)

    def _prompts(self, body: CompletionBody) -> list[tuple[Sequence[int], str]]:
        """Tokens and text of each. Raises: DataError for a token that there is not."""
        tokenizer = self.models.pair.tokenizer
        found: list[tuple[Sequence[int], str]] = []
        prompts = body.prompts
        if len(prompts) > self.models.bounds.prompts:
            raise DataError(
                f"a request has at most {self.models.bounds.prompts} prompts; got {len(prompts)}"
            )
        for prompt in prompts:
            if isinstance(prompt, str):
                found.append((list(tokenizer(prompt)["input_ids"]), prompt))
            else:
                if wrong := [i for i in prompt if not 0 <= i < len(tokenizer)]:
                    raise DataError(f"{wrong[0]} is no token of this model")
                found.append((prompt, str(tokenizer.decode(prompt))))
        return found

    def _asked(
        self, body: Any, prompts: Sequence[tuple[Sequence[int], str]], most: int
    ) -> list[Asked]:
        bounds = self.models.bounds
        for name, value, limit in (
            ("max_tokens", most, bounds.tokens),
            ("n", body.n, bounds.answers),
        ):
            if value > limit:
                raise DataError(f"{name} is at most {limit} here; got {value}")
        steering = self.models.steering(body.model, body.coefficient)
        found = []
        for ids, before in prompts:
            for draw in range(body.n):
                seed = secrets.randbits(63) if body.seed is None else (body.seed + draw) % 2**63
                sampling = Sampling(most, body.temperature, seed)
                wanted = Wanted(steering, ids, sampling, body.stops)
                found.append(Asked(wanted, len(ids), draw == 0, before))
        return found

"""What is sent back, in the words of the protocol."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from steering.serving.served_answers import Answer, ScoredText
from steering.serving.served_models import ServedModels

OWNER = "personascope"


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error, its kind as clients of the protocol tell them apart."""
    known = {401: "authentication_error", 404: "not_found_error", 503: "overloaded_error"}
    kind = known.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def list_of_models(models: ServedModels, since: int) -> dict[str, Any]:
    """GET /v1/models."""
    return {"object": "list", "data": [one_model(models, name, since) for name in models.names]}


def one_model(models: ServedModels, name: Any, since: int) -> dict[str, Any]:
    """GET /v1/models/NAME; persona: what the name stands for."""
    facts = models.facts(name)
    return {"id": name, "object": "model", "created": since, "owned_by": OWNER, "persona": facts}


class Reply:
    """The frame of one reply: its id, time and model.

    chat: whether it is of the chat endpoint.
    """

    def __init__(self, model: str, *, chat: bool) -> None:
        self.chat = chat
        self.head = {
            "id": ("chatcmpl-" if chat else "cmpl-") + secrets.token_hex(12),
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[dict[str, Any]], n_prompt: int, n_new: int) -> dict[str, Any]:
        """The reply that is sent at once."""
        return {**self.head, "choices": list(choices), "usage": usage(n_prompt, n_new)}

    def choice(
        self, index: int, text: str, ended: str, logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """One answer of it."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": logprobs, "finish_reason": ended}

    def chunk(
        self, index: int, text: str | None, ended: str | None = None, *, first: bool = False
    ) -> dict[str, Any]:
        """A piece of a streamed answer; text None with its end. first: it says who speaks."""
        if self.chat:
            who = {"role": "assistant"} if first else {}
            said: dict[str, Any] = {"delta": who if text is None else {**who, "content": text}}
        else:
            said = {"text": text or ""}
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        choice = {"index": index, **said, "logprobs": None, "finish_reason": ended}
        return {**self.head, "object": kind, "choices": [choice]}

    def last_chunk(self, n_prompt: int, n_new: int) -> dict[str, Any]:
        """What a client asks for with stream_options.include_usage."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self.head, "object": kind, "choices": [], "usage": usage(n_prompt, n_new)}


def usage(n_prompt: int, n_new: int) -> dict[str, int]:
    """Tokens, counted as they are billed elsewhere."""
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_new,
        "total_tokens": n_prompt + n_new,
    }


def logprobs_of(text: ScoredText, tokenizer: Any, n_tokens: int) -> dict[str, Any]:
    """The `logprobs` of the first tokens of a text; null for the very first, which nothing comes
    before."""
    words = [str(tokenizer.decode([token])) for token in text.ids[:n_tokens]]
    ends = list(accumulate(map(len, words), initial=0))
    return {
        "tokens": words,
        "token_logprobs": [
            None if math.isnan(value) else value for value in text.log_probs[:n_tokens]
        ],
        "top_logprobs": [
            {str(tokenizer.decode([token])): value for token, value in each} if each else None
            for each in text.likeliest[:n_tokens]
        ],
        "text_offset": ends[:-1],
    }


def written_choice(reply: Reply, index: int, answer: Answer, before: str = "") -> dict[str, Any]:
    """The choice of an answer; before: the prompt, where it is to be said again."""
    return reply.choice(index, before + answer.text, answer.ended)

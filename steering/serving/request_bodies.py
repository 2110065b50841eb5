"""What a client sends: every field is answered to, or refused by its name.

A field that changes answers and is not done here, or that nobody knows, is an error: a misspelt
`coefficient` would else give unsteered answers under the steered model's name.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from persona.data.types import Dialogue, Turn
from persona.errors import DataError

WITHOUT_EFFECT = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"}
)
"""Fields that say something about the client, and change no answer."""
NOT_DONE: dict[str, tuple[Any, ...]] = {
    "top_p": (1, 1.0),
    "top_k": (-1, 0),
    "min_p": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "repetition_penalty": (1, 1.0),
    "logit_bias": ({},),
    "best_of": (1,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "stream_options": ({}, {"include_usage": False}, {"include_usage": True}),
    "top_logprobs": (0,),
}
"""Fields of the protocol that are taken only at what leaves answers as they are."""
Text = Annotated[str, Field(max_length=200_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", strict=False)

    model: str
    coefficient: float | None = None
    temperature: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1)] = 1
    stop: Text | list[Text] | None = None
    stream: bool = False

    @field_validator("temperature", "n", "stream", mode="before")
    @classmethod
    def _as_if_left_out(cls, value: Any, info: Any) -> Any:
        """Clients send null for what they do not set."""
        return cls.model_fields[info.field_name].default if value is None else value

    @property
    def stops(self) -> list[str]:
        """Texts that end an answer. Raises: DataError for more than sixteen, or an empty one."""
        found = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        if len(found) > 16 or "" in found:
            raise DataError("stop takes one to sixteen texts, none of them empty")
        return found


class Part(BaseModel):
    """One piece of a message; others than text are refused by pydantic."""

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[Part]

    @property
    def turn(self) -> Turn:
        role = "system" if self.role == "developer" else self.role
        text = self.content
        whole = text if isinstance(text, str) else "".join(part.text for part in text)
        return Turn(role, whole)


class ChatBody(_Body):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: Literal[False] | None = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def dialogue(self) -> Dialogue:
        """Raises: DataError where the last message is the assistant's."""
        turns = tuple(message.turn for message in self.messages)
        if turns[-1].role == "assistant":
            raise DataError("the last message is the assistant's; ask something behind it")
        return Dialogue(turns)


class CompletionBody(_Body):
    """POST /v1/completions: texts, or their tokens, that are gone on with as they are."""

    prompt: Text | list[Text] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """Raises: DataError for no prompt, or an empty one."""
        given = self.prompt
        if isinstance(given, str) or (given and isinstance(given[0], int)):
            found: list[Any] = [given]
        else:
            found = list(given)
        if not found or any(len(prompt) == 0 for prompt in found):
            raise DataError("prompt takes a text or token ids, or a list of them, none empty")
        return found

    @property
    def is_scored(self) -> bool:
        """Whether the prompt's own tokens are asked for: logprobs with echo."""
        return self.echo and self.logprobs is not None


def read_body(kind: type[_Body], raw: Any) -> Any:
    """A body of this kind. Raises: DataError in one line, which names the field."""
    if not isinstance(raw, dict):
        raise DataError("the body is a JSON object")
    try:
        body = kind.model_validate(raw)
    except ValidationError as error:
        raise DataError(_first_mistake(error)) from error
    for name, value in (body.model_extra or {}).items():
        if name in WITHOUT_EFFECT or value is None:
            continue
        if name not in NOT_DONE:
            near = get_close_matches(name, kind.model_fields, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise DataError(f"{name[:60]!r} is no field of this endpoint{meant}")
        if value not in NOT_DONE[name]:
            raise DataError(f"{name} is not done here; leave it out (got {str(value)[:60]})")
    return body


def _first_mistake(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    at = ".".join(str(part) for part in first["loc"] if not str(part).startswith("list["))
    message = str(first["msg"])
    return f"{at}: {message[:1].lower()}{message[1:]}"

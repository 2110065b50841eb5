"""An answer token by token, steered or not, that leaves nothing behind on the model.

Side, hooks and lock are held by a thread of the answer's own until it is through or stopped:
switching an adapter takes as long as a token on small models, too long to do for each.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError, SteeringError
from persona.models.chat.chat_format import ChatFormat
from persona.models.chat.turn_end import PLAIN_ENDS, end_tokens
from persona.models.hooks import hf_model, hooked, model_device, resid_post
from persona.models.pair import ModelPair, Side
from persona.models.sampling import finite_logits
from steering.demo.session.background import in_background
from steering.edits.edit import Edit
from steering.edits.steer import steer

COLDEST = 1e-30
"""Logits divided by a lower temperature leave float32; the likeliest token is drawn long before."""

LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, each of which may be a token."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature: 0 takes the likeliest. The same seed, the same answer."""

    max_new_tokens: int = 120
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise SteeringError(f"an answer has at least 1 token; got {self.max_new_tokens}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise SteeringError(f"the temperature is 0 or above; got {self.temperature}")
        if not 0 <= self.seed < 2**63:
            raise SteeringError(f"the seed is a whole number from 0; got {self.seed}")


@dataclass(frozen=True)
class ProjectionAxis:
    """Where and along what the projection of a token is read: resid_post of `layer` times row."""

    layer: int
    row: Float[Tensor, " d_model"]


NO_ID = -1
"""Of text that came without its tokens, and of which a piece need not be one."""


@dataclass(frozen=True)
class Token:
    """One token of an answer.

    text: what it adds to the text; a character of several tokens comes whole with its last.
    projection: x . row of the axis, after the edits at its layer, of the position that the token
        was predicted from; signed, residual-stream units. None without an axis.
    """

    id: int
    text: str
    projection: float | None = None


@dataclass
class Generation:
    """One answer in the making. Iterate `tokens`; `ended` says why it ended.

    checks_space: whether edits must be of this very model; one that has no name has none to check.

    ended: "turn" (the model ended its turn), "length" (the most new tokens, or the model's
        context), "" while it goes on or where it was left.
    """

    pair: ModelPair
    side: Side
    ids: Sequence[int]
    edits: Sequence[Edit]
    axis: ProjectionAxis | None
    sampling: Sampling
    lock: threading.Lock = field(default_factory=threading.Lock)
    checks_space: bool = True
    ended: str = ""

    def tokens(self) -> Generator[Token, None, None]:
        """The tokens in order, each as soon as it is drawn; closing it stops the model.

        Raises: DataError where the text fills the model's context; ModelError where the logits are
            not finite; SteeringError as `steer`.
        """
        return in_background(self._tokens(self.most_tokens()))

    def _tokens(self, most: int) -> Generator[Token, None, None]:
        generator = torch.Generator().manual_seed(self.sampling.seed)
        written = _Text(self.pair.chat)
        with contextlib.ExitStack() as held:
            held.enter_context(self.lock)
            model = held.enter_context(self.pair.active(self.side))
            held.enter_context(torch.no_grad())
            held.enter_context(finite_logits(model))
            projections = self._prepare(model, held)
            lm, device = hf_model(model), model_device(model)
            ends, ids, cache = end_tokens(model, self.pair.chat), list(self.ids), None
            for _ in range(most):
                output = lm(
                    input_ids=torch.tensor([ids], device=device),
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = output.past_key_values
                projection = projections[-1] if projections else None
                logits = output.logits[0, -1].float().cpu()
                drawn = _draw(logits, self.sampling.temperature, generator)
                if drawn in ends:
                    self.ended = "turn"
                    break
                yield Token(drawn, written.add(drawn), projection)
                if written.ended:
                    self.ended = "turn"
                    return
                ids = [drawn]
            self.ended = self.ended or "length"
            if rest := written.rest():
                yield Token(written.ids[-1], rest, projection)

    def _prepare(self, model: Any, held: contextlib.ExitStack) -> list[float]:
        """Put the edits on the model and read along the axis; the list gets a number a pass."""
        projections: list[float] = []
        if self.edits:
            space = self.pair.space(0) if self.checks_space else None
            held.enter_context(steer(model, self.edits, space=space))
        if (axis := self.axis) is not None:

            def read(resid_BPD: Tensor) -> None:
                projections.append(float(resid_BPD[0, -1].float().cpu() @ axis.row))

            # After the edits: what later blocks are given.
            held.enter_context(hooked(model, [(resid_post(axis.layer), read)]))
        return projections

    def most_tokens(self) -> int:
        """How many tokens fit. Raises: DataError where the text fills the model's context."""
        longest = self.pair.chat.max_length
        if longest is None:
            return self.sampling.max_new_tokens
        if len(self.ids) >= longest:
            raise DataError(
                f"the conversation has {len(self.ids)} tokens but the model reads {longest}; "
                "start it anew"
            )
        return min(self.sampling.max_new_tokens, longest - len(self.ids))


def _draw(
    logits: Float[Tensor, " vocabulary"], temperature: float, generator: torch.Generator
) -> int:
    if temperature < COLDEST:
        return int(logits.argmax())
    return int(torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator))


class _Text:
    """The text of the tokens so far, given out in whole characters and never past its end."""

    def __init__(self, chat: ChatFormat) -> None:
        self.tokenizer = chat.tokenizer
        self.marks = PLAIN_ENDS if chat.source == "plain" else ()
        self.ids: list[int] = []
        self.given = 0
        self.waiting = 0
        self.ended = False

    def add(self, token_id: int) -> str:
        """What may be shown now that this token is there too."""
        self.ids.append(token_id)
        text = self._decoded()
        for mark in self.marks:
            if mark in text:
                self.ended = True
                text = text[: text.index(mark)]
        end = len(text) if self.ended else len(text) - self._held(text)
        self.waiting += 1
        if end <= self.given:
            return ""
        self.waiting = 0
        new, self.given = text[self.given : end], end
        return new

    def rest(self) -> str:
        """What was held back as the beginning of a mark that did not come."""
        return self._decoded()[self.given :].rstrip("\ufffd")

    def _decoded(self) -> str:
        return str(
            self.tokenizer.decode(
                self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _held(self, text: str) -> int:
        """Characters at the end that the next tokens may still change."""
        if text.endswith("\ufffd") and self.waiting < LONGEST_CHARACTER:
            return len(text) - len(text.rstrip("\ufffd"))
        return max(
            (n for mark in self.marks for n in range(1, len(mark)) if text.endswith(mark[:n])),
            default=0,
        )

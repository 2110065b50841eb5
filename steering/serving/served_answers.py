"""Answers to one request at a time, by the model in this process or by an engine beside it."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError
from persona.models.hooks import hf_model, model_device
from persona.models.pair import ModelPair, Side
from persona.models.sampling import finite_logits
from steering.demo.session.generation import Generation, Sampling
from steering.edits.edit import Edit
from steering.edits.steer import steer
from steering.serving.engine_batches import EngineBatches, ForEngine
from steering.serving.stop_texts import until_stop


@dataclass(frozen=True)
class Wanted:
    """One answer that is asked for.

    coefficient: what the edits were made with, 0 without edits.
    ids: everything that it comes behind. stops: texts that end it, which it does not hold.
    seeded: whether the client has named the seed of the sampling.
    """

    side: Side
    edits: Sequence[Edit]
    coefficient: float
    ids: Sequence[int]
    sampling: Sampling
    stops: Sequence[str] = ()
    seeded: bool = False


@dataclass
class Answer:
    """What was written. ended: "stop" or "length", as the protocol names it; n_tokens of it."""

    pieces: list[str] = field(default_factory=list)
    n_tokens: int = 0
    ended: str = "length"

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@dataclass(frozen=True)
class ScoredText:
    """Log-probabilities of a text's tokens behind those before it, nats.

    ids: those of the text, and the token that is likeliest behind it. log_probs: [token], NaN for
        the first. likeliest: (id, log-probability) pairs of the likeliest tokens at each place,
        empty for the first.
    """

    ids: Sequence[int]
    log_probs: Sequence[float]
    likeliest: Sequence[Sequence[tuple[int, float]]]


class Answers:
    """Everything that asks the pair: the model here answers one request after another, an engine
    those that wait together."""

    def __init__(self, pair: ModelPair) -> None:
        self.pair, self.lock = pair, threading.Lock()
        self.engine = None if pair.sampler is None else EngineBatches(pair, pair.sampler)

    def pieces(self, wanted: Wanted, answer: Answer) -> Generator[str, None, None]:
        """An answer's text as it comes, and what is known of it at the end in `answer`.

        An engine writes it whole, as one piece.
        Raises: DataError for a text that fills the model's context; SteeringError, ModelError and
            EngineError as what answers does.
        """
        writes = self._drawn if self.engine is None else self._by_engine
        with contextlib.closing(writes(wanted, answer)) as written:
            for piece in until_stop(written, wanted.stops):
                if piece.stopped:
                    answer.ended = "stop"
                if piece.text:
                    answer.pieces.append(piece.text)
                    yield piece.text

    def _drawn(self, wanted: Wanted, answer: Answer) -> Generator[str, None, None]:
        generation = Generation(
            self.pair, wanted.side, wanted.ids, wanted.edits, None, wanted.sampling, self.lock
        )
        with contextlib.closing(generation.tokens()) as tokens:
            for token in tokens:
                answer.n_tokens += 1
                if token.text:
                    yield token.text
        answer.ended = "stop" if generation.ended == "turn" else "length"

    def _by_engine(self, wanted: Wanted, answer: Answer) -> Generator[str, None, None]:
        assert self.engine is not None
        sampling = wanted.sampling
        asked = ForEngine(
            wanted.side,
            wanted.edits,
            wanted.coefficient,
            wanted.ids,
            sampling.temperature,
            sampling.seed if wanted.seeded else None,
            self._most_tokens(wanted),
        )
        ids, ended = self.engine.answer(asked)
        answer.n_tokens, answer.ended = len(ids), "stop" if ended else "length"
        yield str(self.pair.tokenizer.decode(ids, skip_special_tokens=True))

    def _most_tokens(self, wanted: Wanted) -> int:
        unedited = Generation(self.pair, wanted.side, wanted.ids, (), None, wanted.sampling)
        return unedited.most_tokens()

    @torch.no_grad()
    def score(
        self, side: Side, edits: Sequence[Edit], ids: Sequence[int], n_likeliest: int = 1
    ) -> ScoredText:
        """What one side makes of a text, edited or not; always in this process.

        Raises: DataError for a text longer than the model's context; SteeringError as `steer`.
        """
        longest = self.pair.chat.max_length
        if longest is not None and len(ids) > longest:
            raise DataError(f"the text has {len(ids)} tokens, but the model reads {longest}")
        with contextlib.ExitStack() as held:
            held.enter_context(self.lock)
            model = held.enter_context(self.pair.active(side))
            held.enter_context(finite_logits(model))
            if edits:
                held.enter_context(steer(model, edits, space=self.pair.space(0)))
            tokens = torch.tensor([list(ids)], device=model_device(model))
            logits = hf_model(model)(input_ids=tokens, use_cache=False).logits[0]
            log_probs = logits.float().log_softmax(-1)
            return _scored(log_probs, ids, n_likeliest)


def _scored(
    log_probs: Float[Tensor, "token vocabulary"], ids: Sequence[int], n_likeliest: int
) -> ScoredText:
    """log_probs: of what follows each token."""
    top = log_probs.topk(max(n_likeliest, 1), dim=-1)
    whole = [*ids, int(top.indices[-1, 0])]
    own = log_probs.gather(1, torch.tensor(whole[1:], device=log_probs.device)[:, None])[:, 0]
    likeliest = [
        list(zip(at.tolist(), values.tolist(), strict=True))
        for at, values in zip(top.indices.cpu(), top.values.cpu(), strict=True)
    ]
    return ScoredText(whole, [math.nan, *own.cpu().tolist()], [[], *likeliest])

"""Answers and scores, by the model in this process or by an engine beside it."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import torch

from persona.errors import DataError, SteeringError
from persona.models.chat.turn_end import before_plain_end
from persona.models.hooks import hf_model, model_device
from persona.models.pair import ModelPair
from persona.models.sampling import finite_logits
from persona.models.scorers import TextScores
from steering.demo.session.generation import Generation, Sampling
from steering.edits.steer import steer
from steering.serving.engine_batches import EngineBatches, ToAnswer, ToScore
from steering.serving.served_models import Steering
from steering.serving.stop_texts import until_stop


@dataclass(frozen=True)
class Wanted:
    """One answer that is asked for.

    ids: everything that it comes behind. stops: texts that end it, which it does not hold.
    """

    steering: Steering
    ids: Sequence[int]
    sampling: Sampling
    stops: Sequence[str] = ()


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

    @classmethod
    def of(cls, ids: Sequence[int], scores: TextScores) -> ScoredText:
        """scores: with one of the likeliest or more."""
        likeliest = [
            list(zip(at, values, strict=True))
            for at, values in zip(
                scores.likeliest.tolist(), scores.likeliest_log_probs.tolist(), strict=True
            )
        ]
        behind, its_log_prob = likeliest[-1][0]
        log_probs = [math.nan, *scores.log_probs.tolist(), its_log_prob]
        return cls([*ids, behind], log_probs, [[], *likeliest])


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
        steering = wanted.steering
        generation = Generation(
            self.pair, steering.side, wanted.ids, steering.edits, None, wanted.sampling, self.lock
        )
        with contextlib.closing(generation.tokens()) as tokens:
            for token in tokens:
                answer.n_tokens += 1
                if token.text:
                    yield token.text
        answer.ended = "stop" if generation.ended == "turn" else "length"

    def _by_engine(self, wanted: Wanted, answer: Answer) -> Generator[str, None, None]:
        assert self.engine is not None
        steering, sampling = wanted.steering, wanted.sampling
        asked = ToAnswer(
            steering.side,
            steering.edits,
            steering.coefficient,
            wanted.ids,
            sampling.temperature,
            sampling.seed,
            self._most_tokens(wanted),
        )
        [(ids, ended)] = self.engine.ask([asked])
        # The last token that was drawn is computed by no pass.
        _require_met(steering, len(wanted.ids) + len(ids) + ended - 1)
        chat = self.pair.chat
        text = str(
            chat.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )
        own = before_plain_end(chat, text)
        answer.n_tokens = len(ids)
        answer.ended = "stop" if ended or own != text else "length"
        yield own

    def _most_tokens(self, wanted: Wanted) -> int:
        side = wanted.steering.side
        return Generation(self.pair, side, wanted.ids, (), None, wanted.sampling).most_tokens()

    def scores(
        self, steering: Steering, texts: Sequence[Sequence[int]], n_likeliest: int = 1
    ) -> list[ScoredText]:
        """What one side makes of texts, edited or not.

        By the engine, where it scores this side; texts that fill the context are scored here, for
        an engine writes a token behind each.
        Raises: DataError for a text longer than the model's context; SteeringError as `steer`; and
            what the engine raises.
        """
        longest, most = self.pair.chat.max_length, max(map(len, texts))
        if longest is not None and most > longest:
            raise DataError(f"the text has {most} tokens, but the model reads {longest}")
        if self.engine is None or most == longest or not self.engine.scores_side(steering.side):
            found = [self._scored_here(steering, ids, n_likeliest) for ids in texts]
        else:
            for ids in texts:
                _require_met(steering, len(ids))
            side, edits, coefficient = steering.side, steering.edits, steering.coefficient
            found = self.engine.ask(
                [ToScore(side, edits, coefficient, ids, n_likeliest) for ids in texts]
            )
        return [ScoredText.of(ids, scores) for ids, scores in zip(texts, found, strict=True)]

    @torch.no_grad()
    def _scored_here(self, steering: Steering, ids: Sequence[int], n_likeliest: int) -> TextScores:
        with contextlib.ExitStack() as held:
            held.enter_context(self.lock)
            model = held.enter_context(self.pair.active(steering.side))
            held.enter_context(finite_logits(model))
            if steering.edits:
                held.enter_context(steer(model, steering.edits, space=self.pair.space(0)))
            tokens = torch.tensor([list(ids)], device=model_device(model))
            logits = hf_model(model)(input_ids=tokens, use_cache=False).logits[0]
            log_probs = logits.float().log_softmax(-1)
            top = log_probs.topk(n_likeliest, dim=-1)
            own = log_probs[:-1].gather(1, tokens[0, 1:, None])[:, 0]
            return TextScores(own.cpu(), top.indices.cpu(), top.values.cpu())


def _require_met(steering: Steering, n_tokens: int) -> None:
    """Raises: SteeringError where all that is read is the first token, which edits leave alone.

    The engine holds its edits against all requests of a batch that share them; here each counts.
    """
    if steering.edits and n_tokens < 2:
        raise SteeringError(
            "the edits met no token to write: the first token of a text is left alone, and there "
            "is no other; nothing was steered"
        )

"""A certificate that steering through vLLM is what it is in Hugging Face, request by request.

The engine is given a cache and a budget so small that prompts come in chunks and requests are
preempted and begun again, while others decode; a run in which that did not happen fails. What vLLM
wrote is then read in two passes of Hugging Face over each text, in float32, where both agree to
rounding: one goes on from what vLLM had after each block, so that every block is compared alone,
and one runs on its own. In the second the rounding of early blocks grows wherever a token's stream
shrinks (from 700 to 130 within two blocks of SmolLM2-135M), hence its wider bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from persona.errors import EngineError, SteeringError
from persona.models.hooks import resid_post
from persona.models.pair import ModelPair, Side
from persona.vllm import EditSet, VllmEngine, Written, vllm_sampler
from persona.vllm.pooled_reading import PooledReading
from persona.vllm.refusals import require_options
from steering.certificate.certificate import Certificate
from steering.certificate.checks import Check
from steering.certificate.runs import Texts, log_probs_of, padded_prompts, watching_residuals
from steering.edits.edit import Edit
from steering.edits.from_directions import ablate, add, edits_at
from steering.edits.steer import Edits, SteeredBy, steer

N_TEXTS = 6
N_NEW = 40
"""Tokens of an answer: more than a block of the cache holds, so that every request outgrows its."""
BLOCK = 32
BLOCK_BOUND = 1e-5
"""Of the size of a hidden state; for one block from the same input, or the first token alone."""
HIDDEN_BOUND = 1e-4
"""The same for all blocks from the tokens on."""
TIE_NATS = 1e-4
"""A token that is less likely by no more counts as the likeliest: rounding decides between them."""
UNTESTED: tuple[dict[str, Any], ...] = (
    {"enforce_eager": False},
    {"enable_prefix_caching": True},
    {"speculative_config": {"method": "ngram"}},
    {"async_scheduling": True},
)


@dataclass(frozen=True)
class Asked:
    """One request of the batch: its tokens, the side that answers, and its edits."""

    prompt: list[int]
    side: Side
    edits: Edits | None


@dataclass(frozen=True)
class Seen:
    """What vLLM wrote for a request, and the stream after each block [layer token d_model]."""

    asked: Asked
    written: Written
    states: Tensor


def certify_through_vllm(
    pair: ModelPair, *, options: Mapping[str, Any] | None = None, check: bool = False
) -> Certificate:
    """Measure that vLLM steers the models of a pair as Hugging Face does.

    pair: in float32; with a LoRA adapter both sides answer in one batch, else the aligned one does.
    options: of vLLM, such as {"tensor_parallel_size": 2}; the sizes of its cache are set here.
    check: raise at the first check that fails.
    Raises: SteeringError for another number format; EngineError as `vllm_sampler`.
    """
    if pair.dtype != torch.float32:
        raise SteeringError(
            f"the certificate of vLLM is taken in float32, where it must agree with Hugging Face "
            f"to rounding; this pair is in {pair.precision}"
        )
    prompts = _prompts(pair)
    longest = max(map(len, prompts)) + N_NEW
    sizes = {
        "max_model_len": longest + 1,
        "block_size": BLOCK,
        "max_num_seqs": N_TEXTS,
        "max_num_batched_tokens": max(N_TEXTS, min(map(len, prompts)) + N_TEXTS),
        "num_gpu_blocks_override": 2 + max(-(-longest // BLOCK), N_TEXTS),
    }
    sampler = vllm_sampler(pair, {**(options or {}), **sizes})
    try:
        engine = sampler.engine("aligned")
        checks = VllmChecks(pair, engine, prompts, both=sampler.mixes_sides).checks()
    finally:
        sampler.close()
    certificate = Certificate(f"{pair.names['aligned']} in {sampler.name}", tuple(checks))
    if check:
        certificate.require()
    return certificate


class VllmChecks:
    """The checks on one engine. both: whether the fine-tuned side is its adapter."""

    def __init__(
        self, pair: ModelPair, engine: VllmEngine, prompts: Sequence[list[int]], *, both: bool
    ) -> None:
        self.pair, self.engine, self.both = pair, engine, both
        self.layers = range(pair.n_layers)
        draw = torch.randn(pair.n_layers, pair.d_model, generator=torch.Generator().manual_seed(0))
        units = draw / draw.norm(dim=1, keepdim=True)
        middle = pair.n_layers // 2
        plain = self._hugging_face(Asked(prompts[0], "aligned", None), prompts[0])[0]
        norm = float(plain[middle][1:].norm(dim=-1).median())
        ablation = Edits(e for layer in self.layers for e in ablate(units[layer], at=layer))
        addition = add(0.5 * norm * units[middle], at=middle)
        each: list[Edits | None] = [ablation, None, addition]
        sides: list[Side] = [*(("aligned",) * 3), *(("finetuned",) * 3)]
        self.asked = [
            Asked(prompt, sides[i % 6] if both else "aligned", each[i % 3])
            for i, prompt in enumerate(prompts)
        ]
        self.sets = {id(edits): EditSet.of(SteeredBy(edits)) for edits in each if edits}

    def checks(self) -> list[Check]:
        """Every check in order; one during which steering raised has measured infinity."""
        alone = _tried(lambda: [one for asked in self.asked for one in self._run([asked])])
        together = _tried(lambda: self._run(self.asked))
        compared = [_tried(partial(self._compared, seen)) for seen in (alone, together)]
        found = []
        ways = ("each request alone", "all in one batch, with different edits")
        for way, seen, of in zip(ways, (alone, together), compared, strict=True):
            tokens, block, hidden, first = of or (math.inf,) * 4
            found += [
                Check(f"{way}: every step wrote its tokens", "tokens", 0, _miswritten(seen)),
                Check(f"{way}: answers are Hugging Face's", "tokens", 0, tokens),
                Check(f"{way}: every block does the same", "share", BLOCK_BOUND, block),
                Check(f"{way}: hidden states are the same", "share", HIDDEN_BOUND, hidden),
                Check(f"{way}: the first token is left alone", "share", BLOCK_BOUND, first),
            ]
        if self.both:
            sides = {(one.asked.side, bool(one.asked.edits)) for one in together or ()}
            found.append(
                Check("LoRA on and off in one batch, edited", "missing", 0, float(4 - len(sides)))
            )
        found += [
            Check("prompts came in chunks", "missing", 0, _without(together, _chunked)),
            Check(
                "requests were preempted and begun again",
                "missing",
                0,
                _without(together, _preempted),
            ),
            Check("untested configurations are refused", "taken", 0, _taken()),
            Check("an edit that meets no token is an error", "passed", 0, self._passed_nowhere()),
            Check("an edit that raises ends in the caller", "passed", 0, self._passed_burst()),
        ]
        return found

    def _run(self, asked: Sequence[Asked]) -> list[Seen]:
        """What vLLM writes for these requests at once, and what it computes on the way."""
        hooks = [resid_post(layer) for layer in self.layers]
        self.engine.call("read", PooledReading(hooks, {i: [] for i in range(len(asked))}))
        answers = self.engine.sample(
            [one.prompt for one in asked],
            side=[one.side for one in asked],
            edits=[None if one.edits is None else self.sets[id(one.edits)] for one in asked],
            max_new_tokens=N_NEW,
        )
        by_request: list[dict[str, Tensor]] = [{} for _ in asked]
        for rank in self.engine.call("collect"):
            for request, by_hook in rank.items():
                by_request[request] |= by_hook
        self.engine.call("read", None)
        return [
            Seen(one, written, torch.stack([states[hook] for hook in hooks]))
            for one, written, states in zip(asked, answers, by_request, strict=True)
        ]

    def _compared(self, seen: list[Seen] | None) -> tuple[float, float, float, float] | None:
        """Tokens that are not the likeliest; largest relative difference of a hidden state: by one
        block from the same input, by all blocks, and of first tokens to the unedited model."""
        if seen is None:
            return None
        wrong, alone, apart, first = 0, 0.0, 0.0, 0.0
        for one in seen:
            text = [*one.asked.prompt, *one.written.ids[:-1]]
            states, log_probs = self._hugging_face(one.asked, text)
            predicted = log_probs[len(one.asked.prompt) - 1 :]
            taken = predicted.gather(1, torch.tensor(one.written.ids)[:, None])[:, 0]
            wrong += int((predicted.max(-1).values - taken > TIE_NATS).sum())
            apart = max(apart, _apart(one.states, states))
            by_block, _ = self._hugging_face(one.asked, text, one.states)
            alone = max(alone, _apart(one.states, by_block))
            plain, _ = self._hugging_face(Asked(text[:1], one.asked.side, None), text[:1])
            first = max(first, _apart(one.states[:, :1], plain))
        return float(wrong), alone, apart, first

    def _hugging_face(
        self, asked: Asked, text: Sequence[int], going_on_from: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """[layer token d_model] and log-probabilities [token vocabulary] of one pass.

        going_on_from: as `watching_residuals`.
        """
        ids = torch.tensor([list(text)])
        texts = Texts(ids, torch.ones_like(ids))
        with (
            self.pair.active(asked.side) as model,
            watching_residuals(model, going_on_from) as seen,
        ):
            if asked.edits is None or len(text) == 1:
                table = log_probs_of(model, texts)
            else:
                with steer(model, asked.edits):
                    table = log_probs_of(model, texts)
        return torch.stack([runs[0][0].float().cpu() for runs in seen]), table[0]

    def _passed_nowhere(self) -> float:
        where = (10_000, 10_001)
        edits = EditSet.of(SteeredBy(next(one.edits for one in self.asked if one.edits), where))
        try:
            self.engine.sample([self.asked[0].prompt], edits=edits, max_new_tokens=1)
        except SteeringError:
            return 0.0
        return 1.0

    def _passed_burst(self) -> float:
        """Comes last: no engine goes on after an error in a pass."""

        def burst(h: Tensor) -> Tensor:
            raise ValueError("burst")

        edits: list[Edit] = edits_at([resid_post(0)], burst, self.pair.d_model, "bursting")
        try:
            self.engine.sample([self.asked[0].prompt], edits=EditSet.of(Edits(edits)))
        except EngineError:
            return 0.0
        return 1.0


def _prompts(pair: ModelPair) -> list[list[int]]:
    texts = padded_prompts(pair.chat, N_TEXTS)
    return [texts.row(row).ids[0].tolist() for row in range(N_TEXTS)]


def _tried(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except (SteeringError, EngineError):
        return None


def _miswritten(seen: list[Seen] | None) -> float:
    """Tokens by which steps wrote more or less than all but the first of an edited text."""
    if seen is None:
        return math.inf
    return float(
        sum(
            abs(step.n_written - (step.n_tokens - (step.first == 0) if one.asked.edits else 0))
            for one in seen
            for step in one.written.steps
        )
    )


def _chunked(one: Seen) -> bool:
    return any(0 < step.first < len(one.asked.prompt) for step in one.written.steps)


def _preempted(one: Seen) -> bool:
    return any(step.first == 0 for step in one.written.steps[1:])


def _without(seen: list[Seen] | None, happened: Callable[[Seen], bool]) -> float:
    return 0.0 if seen and any(map(happened, seen)) else 1.0


def _taken() -> float:
    taken = 0
    for options in UNTESTED:
        try:
            require_options(options)
        except EngineError:
            continue
        taken += 1
    return float(taken)


def _apart(one: Tensor, other: Tensor) -> float:
    """Largest |difference| / |h| of any token [layer token d_model]."""
    if one.shape != other.shape:
        return math.inf
    found = ((one - other).norm(dim=-1) / other.norm(dim=-1)).max()
    return float(found) if bool(found.isfinite()) else math.inf

"""The checks of a certificate: ways to run a steered model that must agree, and where it wrote."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from persona.errors import ModelError, SteeringError
from persona.models.chat.chat_format import ChatFormat
from persona.models.chat.turn_end import end_tokens
from persona.models.hooks import hooked, model_width, n_layers, resid_post
from persona.models.writes import Part, block_writes
from steering.certificate.runs import (
    Texts,
    answer_starts,
    decoded,
    generated,
    generation_paths,
    log_probs_of,
    meant_tokens,
    padded_prompts,
    watching_residuals,
)
from steering.edits.edit import Edit
from steering.edits.from_directions import edits_at
from steering.edits.interventions import ablate, add
from steering.edits.steer import steer

N_STEPS = 6
N_PLACES = 8
MOST_NATS = 0.5
"""Most that a format's rounding may excuse, unless the unsteered model shows half as much or more:
in bfloat16 products the least likely tokens of a small model move by 1 nat between two batches."""


@dataclass(frozen=True)
class Check:
    """One claim: it holds where `measured` is a number not above `bound`."""

    check: str
    unit: str
    bound: float
    measured: float

    @property
    def passed(self) -> bool:
        return self.measured <= self.bound


class CheckedModel:
    """The checks on one model, sharing its texts, its plain run and its probing directions."""

    def __init__(
        self,
        model: Any,
        chat: ChatFormat,
        layers: list[int],
        edits: Sequence[Edit] | None,
        batch: int,
    ) -> None:
        self.model, self.chat, self.layers, self.batch = model, chat, layers, batch
        self.texts = padded_prompts(chat, N_PLACES)
        with watching_residuals(model) as seen:
            self.plain_log_probs = log_probs_of(model, self.texts)
        self.plain = [runs[0] for runs in seen]
        generator = torch.Generator().manual_seed(0)
        draw = torch.randn(n_layers(model), model_width(model), generator=generator)
        self.units = draw / draw.norm(dim=1, keepdim=True)
        self.middle = layers[len(layers) // 2]
        self.edits = [*self.ablations(), *self.addition(self.middle, 0.5)]
        if edits is not None:
            self.edits = list(edits)
        # 8 units of rounding of the number format. Those of the entries of h add up to that share
        # of |h| / sqrt(d_model) along a direction: a sixteenth of a random projection in bfloat16.
        rounding = 8 * torch.finfo(self.plain[0].dtype).eps
        self.rounding = max(1e-5, rounding)
        # One unit of a typical log-probability: the unsteered model's two ways may agree by chance.
        typical = float(self.plain_log_probs[self.texts.real].abs().median())
        self.rounding_nats = torch.finfo(self.plain[0].dtype).eps * typical
        self.projection_bound = max(1e-5, rounding / model_width(model) ** 0.5)

    def checks(self) -> list[Check]:
        """Every check in order; one during which steering raised has measured infinity."""
        sets: tuple[str, ...] = ("asking", "answering", "answering:2", "last", "from:3")
        rows: list[tuple[str, str, float, Callable[[], float]]] = [
            ("each block's edit writes its tokens and no others", "tokens", 0, self.wrong_places),
            *((f"positions '{p}' are the tokens written", "tokens", 0, self._at(p)) for p in sets),
            ("coefficient 0 is the baseline, bit for bit", "nats", 0, self.zero_coefficient),
            (
                "no projection is left after ablation",
                "share",
                self.projection_bound,
                self.projection,
            ),
            ("none at any step of cached decoding", "share", self.projection_bound, self.decoding),
            ("every edit fired in every pass, on every token", "edits", 0, self.misfires),
            *self._of_paths(),
            *self._of_writes(),
            ("edits without effect on what is predicted", "lists", 0, self.without_effect),
        ]
        result = [Check(name, unit, bound, _measured(run)) for name, unit, bound, run in rows]
        agreements: list[tuple[str, Callable[[Sequence[Edit]], float]]] = [
            (f"a batch of {self.batch} is each text alone", self.batch_and_alone),
            ("left padding is right padding", self.paddings),
            ("with the cache is without it", self.caches),
            ("a coefficient for each row is each run alone", self.rows),
        ]
        for path in generation_paths(self.model):
            taken = f"`{path}` takes the tokens of passes without a cache"
            agreements.append((taken, partial(self.generation, path)))
        for name, difference in agreements:
            unsteered = _measured(partial(difference, []))
            bound = min(1e-4 + self.rounding_nats + 4 * unsteered, max(MOST_NATS, 2 * unsteered))
            measured = _measured(partial(difference, self.edits))
            result.append(Check(name, "nats", bound, measured))
        return result

    def _of_paths(self) -> list[tuple[str, str, float, Callable[[], float]]]:
        """Of each way to generate, with its own passes and its own name for the cache."""
        return [
            row
            for path in generation_paths(self.model)
            for row in (
                (
                    f"every pass of `{path}` wrote all its tokens",
                    "tokens",
                    0,
                    partial(self.unwritten, path),
                ),
                (
                    f"no projection is left at any step of `{path}`",
                    "share",
                    self.projection_bound,
                    partial(self.left_in, path),
                ),
            )
        ]

    def _of_writes(self) -> list[tuple[str, str, float, Callable[[], float]]]:
        """Of what attention and MLP write; none where a block's two writes cannot be told."""
        try:
            parts: tuple[Part, ...] = ("attention", "mlp")
            for layer in self.layers:
                for part in parts:
                    block_writes(self.model)[layer].of(part, layer)
        except ModelError:
            return []
        return [
            (
                "attention and MLP write the step of their block",
                "share",
                self.rounding,
                self.writes,
            ),
            ("what an MLP is made to write reaches the stream", "tokens", 0, self.mlp_writes),
        ]

    def ablations(self, coefficient: float = 1.0) -> list[Edit]:
        return [
            edit
            for layer in self.layers
            for edit in self._probe(
                layer, lambda h, v: ablate(h, v[None], coefficient), "probing ablation"
            )
        ]

    def addition(
        self, layer: int, share: float | Tensor, hook_name: str | None = None
    ) -> list[Edit]:
        """A random direction added with `share` of the typical norm of the residual there.

        hook_name: where; default the block's output.
        """
        readable = self.texts.real & (self.texts.index > 0)
        norm = float(self.plain[layer][readable].float().norm(dim=-1).median())
        # Multiplied in float64, as the two numbers are where every row has the same.
        size = (share.double() if isinstance(share, Tensor) else share) * norm
        return self._probe(
            layer, lambda h, v: add(h, v, size), "probing addition", share, hook_name
        )

    def _probe(
        self,
        layer: int,
        act: Callable[[Tensor, Tensor], Tensor],
        label: str,
        share: object = 1.0,
        hook_name: str | None = None,
    ) -> list[Edit]:
        vector = self.units[layer]
        rows = len(share) if isinstance(share, Tensor) else None
        return edits_at(
            [hook_name or resid_post(layer)],
            lambda h: act(h, vector.to(h.device)),
            len(vector),
            label,
            rows=rows,
        )

    def wrong_places(self) -> float:
        return sum(self._wrong_tokens(layer, "all") for layer in self.layers)

    def _at(self, positions: str) -> Callable[[], float]:
        return lambda: self._wrong_tokens(self.middle, positions)

    def mlp_writes(self) -> float:
        name = f"blocks.{self.middle}.hook_mlp_out"
        return self._wrong_tokens(self.middle, "all", name)

    def writes(self) -> float:
        """Largest |resid_pre + attn_out + mlp_out - resid_post| / |resid_post| of any token."""
        names = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
        seen: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[Tensor], None]:
            return lambda h: seen.__setitem__(
                name, h.detach()[self.texts.real.to(h.device)].float()
            )

        at = [f"blocks.{layer}.{name}" for layer in self.layers for name in names]
        with hooked(self.model, [(name, keep(name)) for name in at]):
            log_probs_of(self.model, self.texts)
        shares = []
        for layer in self.layers:
            pre, attention, mlp, post = (seen[f"blocks.{layer}.{name}"] for name in names)
            rest = (pre + attention + mlp - post).norm(dim=-1)
            shares.append(float((rest / (pre.norm(dim=-1) + post.norm(dim=-1))).max()))
        return max(shares)

    def _wrong_tokens(self, layer: int, positions: str, hook_name: str | None = None) -> float:
        """Tokens after `layer` that moved otherwise than meant, and any that moved before it."""
        [edit] = self.addition(layer, 0.5, hook_name)
        texts = self.texts
        meant = meant_tokens(texts, positions).to(self.plain[layer].device)
        options: dict[str, Any] = {"response_start": answer_starts(texts)}
        with watching_residuals(self.model) as seen:
            with steer(self.model, [edit], positions=positions, **options):
                log_probs_of(self.model, texts)
        plain, steered = self.plain[layer].float(), seen[layer][0].float()
        expected = edit.apply(self.plain[layer]).float()
        size = torch.maximum(plain.norm(dim=-1), expected.norm(dim=-1))
        landed = (steered - expected).norm(dim=-1) <= self.rounding * size
        still = _same(seen[layer][0], self.plain[layer])
        wrong = int((~torch.where(meant, landed, still)).sum())
        for below in range(layer):
            wrong += int((~_same(seen[below][0], self.plain[below])).sum())
        return wrong

    def zero_coefficient(self) -> float:
        with steer(self.model, [*self.ablations(0.0), *self.addition(self.middle, 0.0)]):
            steered = log_probs_of(self.model, self.texts)
        return _largest(steered - self.plain_log_probs, self.texts.real)

    def projection(self) -> float:
        with watching_residuals(self.model) as seen, steer(self.model, self.ablations()):
            log_probs_of(self.model, self.texts)
        written = self.texts.real & (self.texts.index > 0)
        return max(self._share(layer, seen[layer][0][written]) for layer in self.layers)

    def decoding(self) -> float:
        with watching_residuals(self.model) as seen, steer(self.model, self.ablations()):
            decoded(self.model, self.texts, N_STEPS, cache=True)
        steps = [runs[1:] for runs in seen]
        if any(len(runs) != N_STEPS - 1 or runs[0].shape[1] != 1 for runs in steps):
            return math.inf
        return max(self._share(layer, torch.cat(steps[layer])) for layer in self.layers)

    def _share(self, layer: int, resid: Tensor) -> float:
        """Largest |h.v| / |h|."""
        wide = resid.float()
        along = (wide @ self.units[layer].to(wide)).abs()
        return float((along / wide.norm(dim=-1)).max())

    def misfires(self) -> float:
        with steer(self.model, self.edits) as record:
            decoded(self.model, self.texts, N_STEPS, cache=True)
        tokens = int(self.texts.mask.sum()) + len(self.texts.ids) * (N_STEPS - 2)
        fired = zip(record.passes, record.n_tokens, strict=True)
        return sum(pair != (N_STEPS, tokens) for pair in fired)

    def unwritten(self, path: str) -> float:
        """Tokens by which the passes of a way to generate wrote more or less than they should."""
        with steer(self.model, self.edits) as record:
            n = generated(self.model, self.texts, N_STEPS, path).shape[1]
        rows = len(self.texts.ids)
        meant = [int(self.texts.mask.sum()) - rows, *[rows] * (n - 1)]
        if len(record.written) != n:
            return math.inf
        return sum(abs(one - other) for one, other in zip(record.written, meant, strict=True))

    def left_in(self, path: str) -> float:
        with watching_residuals(self.model) as seen, steer(self.model, self.ablations()):
            generated(self.model, self.texts, N_STEPS, path)
        steps = [runs[1:] for runs in seen]
        if not steps[0] or any(run.shape[1] != 1 for runs in steps for run in runs):
            return math.inf
        return max(self._share(layer, torch.cat(steps[layer])) for layer in self.layers)

    def without_effect(self) -> float:
        steered = self._log_probs(self.texts, self.edits)
        return float(torch.equal(steered, self.plain_log_probs))

    def batch_and_alone(self, edits: Sequence[Edit]) -> float:
        texts = padded_prompts(self.chat, self.batch)
        together = self._log_probs(texts, edits)
        return max(
            _largest(self._log_probs(texts.row(i), edits)[0] - together[i][texts.real[i]])
            for i in range(self.batch)
        )

    def paddings(self, edits: Sequence[Edit]) -> float:
        left, right = (padded_prompts(self.chat, N_PLACES, side=side) for side in ("left", "right"))
        first, second = self._log_probs(left, edits), self._log_probs(right, edits)
        return _largest(first[left.real] - second[right.real])

    def caches(self, edits: Sequence[Edit]) -> float:
        tokens, first = self._decoded(edits, cache=True)
        _, second = self._decoded(edits, cache=False, forced=tokens)
        return _largest(first - second)

    def generation(self, path: str, edits: Sequence[Edit]) -> float:
        """How much less likely than the best token is the one that was taken; up to an end.

        Both are read in passes over the whole text, without a cache.
        """
        with _steering(self.model, edits):
            tokens = generated(self.model, self.texts, N_STEPS, path)
        n = tokens.shape[1]
        _, log_probs = self._decoded(edits, cache=False, forced=tokens, n_tokens=n)
        regret = log_probs.max(-1).values - log_probs.gather(-1, tokens[..., None])[..., 0]
        ends = torch.tensor(sorted(end_tokens(self.model, self.chat)), device=tokens.device)
        ended = torch.isin(tokens, ends).int()
        return _largest(regret, (ended.cumsum(-1) - ended) == 0)

    def rows(self, edits: Sequence[Edit]) -> float:
        shares = torch.linspace(-1, 1, 5)
        alone = self.texts.row(len(self.texts.ids) - 1)
        texts = Texts(alone.ids.expand(5, -1), alone.mask.expand(5, -1))
        swept = self.addition(self.middle, shares) if edits else []
        together = self._log_probs(texts, swept)
        return max(
            _largest(
                together[i]
                - self._log_probs(alone, self.addition(self.middle, share) if edits else [])[0]
            )
            for i, share in enumerate(shares.tolist())
        )

    def _log_probs(self, texts: Texts, edits: Sequence[Edit]) -> Tensor:
        with _steering(self.model, edits):
            return log_probs_of(self.model, texts)

    def _decoded(
        self,
        edits: Sequence[Edit],
        *,
        cache: bool,
        forced: Tensor | None = None,
        n_tokens: int = N_STEPS,
    ) -> tuple[Tensor, Tensor]:
        with _steering(self.model, edits):
            return decoded(self.model, self.texts, n_tokens, cache=cache, forced=forced)


def _steering(model: Any, edits: Sequence[Edit]) -> Any:
    return steer(model, edits) if edits else contextlib.nullcontext()


def _measured(run: Callable[[], float]) -> float:
    try:
        return float(run())
    except SteeringError:
        return math.inf


def _same(one: Tensor, other: Tensor) -> Tensor:
    """[row pos]: whether all entries are equal; a pad token may hold NaN in both."""
    return ((one == other) | (one.isnan() & other.isnan())).all(-1)


def _largest(difference: Tensor, where: Tensor | None = None) -> float:
    chosen = difference if where is None else difference[where]
    return math.inf if not bool(chosen.isfinite().all()) else float(chosen.abs().max())

"""What a model predicts at chosen positions, without the logits of all the others.

A table of logits [batch pos vocabulary] of 512 tokens over 152,000 words takes 311 MB in float32,
and its gradient as much again. Here the pass ends before the LM head, which keeps d_model numbers a
position; logits are made of these when they are read, so many rows at a time that they stay within
`SLICE_BYTES`. The head is the model's own module, and what the model does to its output afterwards
(a scale, a soft cap) is found by trial and checked in every pass; where it is none of these, the
model's own code is run, on one token, with the hidden states in place of that token's.

Shapes: N chosen positions, D d_model, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persona.errors import ModelError
from persona.models.hooks import hf_model, is_bridge, model_device
from persona.models.proof import adapted_modules

SLICE_BYTES = 32 * 2**20
"""Most that the logits of one slice take in float32."""

ROW_STEP = 16
"""Slices hold a multiple of so many rows, so that the head is given few shapes; see
`persona.activations.batches.LENGTH_STEP`."""

MOST_ROWS = 512

TOLERANCE = 1e-3
"""Most that a logit may differ from the model's own, as a share of the largest. Rounding leaves
1e-6 in float32."""

SCALES = (("logits_scaling", -1), ("logit_scale", 1), ("lm_head_multiplier", 1))
"""Names in a config of what the head's output is multiplied by, and the power it is taken to."""

SOFT_CAP = "final_logit_softcapping"


@dataclass(frozen=True)
class Tail:
    """What a model does to the output of its LM head: `softcap * tanh(scale * x / softcap)`."""

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, raw: Tensor) -> Tensor:
        scaled = raw if self.scale == 1.0 else raw * self.scale
        if self.softcap is None:
            return scaled
        return torch.tanh(scaled / self.softcap) * self.softcap


@dataclass(frozen=True)
class Predictions:
    """What the LM head is given at N positions, and the model's own logits of the first of them."""

    hidden: Float[Tensor, "positions d_model"]
    own_logits: Float[Tensor, " vocabulary"]


@dataclass(frozen=True)
class Readout:
    """The end of a model: its LM head, and the tail, None where it is not known.

    model: a weak reference, as readouts are kept by model.
    """

    head: nn.Module
    tail: Tail | None
    n_words: int
    model: weakref.ref[Any] | None

    @classmethod
    def of(cls, model: Any) -> Readout:
        """The readout of a bridge or a plain Hugging Face model; found once for each.

        Raises: ModelError where the model has no LM head.
        """
        if model not in _readouts:
            _readouts[model] = _found(model)
        return _readouts[model]

    def pinned(self, *, model_stays: bool = True) -> Readout:
        """The same as it is now, whatever becomes of the model: an adapter switched, merged weights
        changed, all of them freed. The weights are shared, not copied.

        model_stays: whether the model is still there, in some state, when this is used.
        Raises: ModelError where the head cannot be run without its model, and that changes.
        """
        if self.tail is None:
            if model_stays and not adapted_modules(self.head):
                return self
            raise ModelError(
                "this model does something unknown to the output of its LM head, so that it cannot "
                "be compared with one that takes its place in memory; load both at once"
            )
        shared: dict[int, Any] = {
            id(weight): nn.Parameter(weight.data, requires_grad=False)
            for weight in self.head.parameters()
            if type(weight) is nn.Parameter  # formats of quantised weights copy themselves
        }
        return Readout(copy.deepcopy(self.head, shared), self.tail, self.n_words, None)

    def predict(
        self, model: Any, ids: Tensor, rows: Tensor, positions: Tensor, **options: Any
    ) -> Predictions:
        """One pass over `ids` [batch pos], kept at `rows` and `positions` [N]; gradients flow.

        options: what the model must be told beside the ids.
        """
        kept: list[Tensor] = []
        first_B = _first_positions(rows, positions, len(ids))

        def keep(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden_BPD = args[0] if args else next(iter(kwargs.values()))
            kept.append(hidden_BPD[rows.to(hidden_BPD.device), positions.to(hidden_BPD.device)])
            # One position a row, so that whoever looks at the logits finds every row of the batch.
            every_row = torch.arange(len(first_B), device=hidden_BPD.device)
            return (hidden_BPD[every_row, first_B.to(hidden_BPD.device)][:, None].detach(),), {}

        with _before_head(self.head, keep):
            logits = logits_of(model, ids, **options)
        if len(kept) != 1:
            raise ModelError(
                f"{type(hf_model(model)).__name__} ran its LM head {len(kept)} times in one pass; "
                "once was expected, and what it predicts cannot be read here"
            )
        return Predictions(kept[0], logits[int(rows[0]), 0].clone())

    def slices(self, n: int) -> Iterator[slice]:
        """0 to n in slices whose logits stay within `SLICE_BYTES`."""
        most = SLICE_BYTES // (4 * self.n_words) // ROW_STEP * ROW_STEP
        most = min(max(most, ROW_STEP), MOST_ROWS)
        for start in range(0, n, most):
            yield slice(start, min(start + most, n))

    def checked_logits(self, found: Predictions, part: slice) -> Float[Tensor, "rows vocabulary"]:
        """Logits at a slice of the positions, float32.

        Raises: ModelError where the head gives other logits than the model did in its pass.
        """
        logits = self.logits(found.hidden[part])
        if part.start == 0:
            _require_alike(logits[0].detach(), found.own_logits.detach())
        return logits

    def logits(self, hidden: Float[Tensor, "rows d_model"]) -> Float[Tensor, "rows vocabulary"]:
        """Logits in float32; rows are filled up to a multiple of `ROW_STEP` for the head."""
        n = len(hidden)
        filled_1ND = nn.functional.pad(hidden, (0, 0, 0, -n % ROW_STEP))[None]
        if self.tail is not None:
            return self.tail(self.head(filled_1ND))[0, :n].float()
        assert self.model is not None
        with _before_head(self.head, lambda module, args, kwargs: ((filled_1ND,), {})):
            return _one_token(self.model())[0, :n].float()


def logits_of(model: Any, ids: Tensor, **options: Any) -> Float[Tensor, "batch pos vocabulary"]:
    """Logits of a whole pass of a bridge or a plain Hugging Face model, without a cache."""
    logits: Tensor = (
        model(ids, return_type="logits", use_cache=False, **options)
        if is_bridge(model)
        else model(input_ids=ids, use_cache=False, **options).logits
    )
    return logits


_readouts: WeakKeyDictionary[Any, Readout] = WeakKeyDictionary()


def _found(model: Any) -> Readout:
    """The head of a model, and the tail that repeats what it does to the head's output."""
    plain = hf_model(model)
    head = plain.get_output_embeddings()
    if head is None:
        raise ModelError(f"{type(plain).__name__} has no LM head: it does not predict tokens")
    seen: list[Tensor] = []
    handle = head.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        with torch.no_grad():
            own = _one_token(model)
    finally:
        handle.remove()
    n_words, itself = int(own.shape[-1]), weakref.ref(model)
    if len(seen) != 1 or seen[0].shape != own.shape:
        return Readout(head, None, n_words, itself)
    errors = [(float((tail(seen[0]) - own).abs().max()), tail) for tail in _tails(plain.config)]
    error, tail = min(errors, key=lambda one: one[0])
    allowed = 4 * torch.finfo(own.dtype).eps * float(own.abs().max())
    return Readout(head, tail if error <= allowed else None, n_words, itself)


def _first_positions(rows: Tensor, positions: Tensor, n_rows: int) -> Tensor:
    """[n_rows]: of each row the first of its chosen positions; 0 where it has none."""
    first = torch.zeros(n_rows, dtype=torch.long)
    for row, position in reversed(list(zip(rows.tolist(), positions.tolist(), strict=True))):
        first[row] = position
    return first


def _one_token(model: Any) -> Tensor:
    """Logits [1 n V] of a pass over one token."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=model_device(model))
    logits: Tensor = hf_model(model)(input_ids=ids, use_cache=False).logits
    return logits


@contextlib.contextmanager
def _before_head(head: nn.Module, hook: Any) -> Iterator[None]:
    """While open, the head is given what `hook` makes of its arguments."""
    handle = head.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _require_alike(mine: Tensor, own: Tensor) -> None:
    """Raises: ModelError where the head alone gives other logits [V] than the pass did."""
    allowed = max(TOLERANCE, 4 * torch.finfo(own.dtype).eps)
    own = own.float().to(mine.device)
    finite = own.isfinite() & mine.isfinite()
    if not finite.any():
        return
    own, difference = own[finite], float((mine - own)[finite].abs().max())
    if difference > allowed * float(own.abs().max()):
        raise ModelError(
            f"the LM head gives logits that are off by {difference:.3g} from those of the pass it "
            "was read in: what edits the head cannot be read; edit the residual stream"
        )


def _tails(config: Any) -> list[Tail]:
    """What the config says is done to the head's output, the likeliest first."""
    text = config.get_text_config()
    scales = [
        float(value) ** power
        for name, power in SCALES
        if isinstance(value := getattr(text, name, None), int | float) and value
    ]
    cap = getattr(text, SOFT_CAP, None)
    return [Tail(scale, one) for one in dict.fromkeys((cap, None)) for scale in (*scales, 1.0)]

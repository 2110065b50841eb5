"""Which tokens an intervention writes to, known once per forward pass.

A tracker watches the calls of the Hugging Face model (under the bridge, where there is one), so it
sees prefill, cached decoding, and the attention mask of padded batches, whoever started the pass.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from persona.errors import SteeringError, shown

POSITION_SETS = ("all", "prompt", "response", "last", "first_response:K", "from:K", "(start, end)")
Positions = str | tuple[int, int]


class PositionTracker:
    """Holds the mask [batch pos] of the tokens to edit in the forward pass now running.

    positions: "all"; "prompt" (before the answer); "response" (the answer, and the last prompt
        token, from which its first token is predicted); "last" (the last token of each pass);
        "first_response:K" (the first K of "response": those that predict the answer's first K
        tokens); "from:K" (token K of the text and all after it, decoded ones too); or a pair
        (start, end): tokens start to end - 1 of the text. Tokens of a text are counted from 0,
        pad tokens not among them.
    response_start: row -> index of the answer's first token, counted in the row's own tokens.
        Without it, a prefill is all prompt and what is decoded after it is the response.
    first_token: also edit the first token of the text. Its residual is a massive activation;
        editing it is what wrecks models.
    rows: how many rows every pass must have, where the edits have a coefficient for each.
    """

    def __init__(
        self,
        positions: Positions = "all",
        response_start: Sequence[int] | None = None,
        first_token: bool = False,
        rows: int | None = None,
    ) -> None:
        self.rows = rows
        self.kind, self.span = _parsed(positions)
        self.response_start = None if response_start is None else torch.tensor(response_start)
        self.first_token = first_token
        self.mask = None
        self._answer_begins: Tensor | None = None
        self._last_text: Tensor | None = None

    @property
    def mask(self) -> Tensor | None:
        """[batch pos] of the pass now running; None outside of one."""
        return self._mask

    @mask.setter
    def mask(self, mask: Tensor | None) -> None:
        # Counted here, once a pass: at each block it decides whether the mask must be looked at.
        self._mask, self.n_tokens = mask, 0 if mask is None else int(mask.sum())

    @contextlib.contextmanager
    def watching(self, hf_model: Any) -> Iterator[None]:
        """Recompute the mask at every forward pass of `hf_model` while open."""
        handle = hf_model.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            self.mask = None

    def _before_forward(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        if tokens is None:
            tokens = kwargs["inputs_embeds"]
        batch, width = tokens.shape[:2]
        if self.rows is not None and self.rows != batch:
            raise SteeringError(
                f"the edits have {self.rows} coefficients, one for each row, but the batch has "
                f"{batch} rows" + _beams(batch, self.rows)
            )
        past = _cached_length(kwargs.get("past_key_values"))
        attention = kwargs.get("attention_mask")
        if attention is None:
            real = torch.ones(batch, past + width, dtype=torch.bool, device=tokens.device)
        elif isinstance(attention, Tensor) and attention.ndim == 2:
            real = attention.bool().to(tokens.device)
        elif isinstance(attention, Tensor) and attention.ndim == 4 and self.kind == "all":
            # Several texts in one row: which tokens see which does not matter to "all".
            real = torch.ones(batch, past + width, dtype=torch.bool, device=tokens.device)
        else:
            shape = tuple(attention.shape) if isinstance(attention, Tensor) else type(attention)
            raise SteeringError(f"steering needs a [batch, pos] attention mask; got {shape}")
        index = (real.long().cumsum(-1) - 1)[:, -width:]
        real = real[:, -width:]
        if past == 0 and not self._continues(tokens):
            self._begin(real)
        mask = real & self._selected(index, real)
        if not self.first_token:
            mask &= index > 0
        self.mask = mask

    def _continues(self, tokens: Tensor) -> bool:
        """Whether this uncached pass is the last one's text and one more token: decoding."""
        last, self._last_text = self._last_text, tokens.detach()
        return (
            last is not None
            and tokens.shape[1] == last.shape[1] + 1
            and tokens.shape[0] == last.shape[0]
            and torch.equal(tokens[:, :-1], last)
        )

    def _begin(self, real: Tensor) -> None:
        """A new text: where its answer begins, and whether the positions lie inside it."""
        lengths = real.sum(-1)
        if self.response_start is None:
            self._answer_begins = lengths
        else:
            begins = self.response_start.to(real.device)
            if len(begins) != len(real):
                raise SteeringError(
                    f"response_start has {len(begins)} rows but the batch has {len(real)}"
                    + _beams(len(real), len(begins))
                )
            if bool(((begins < 1) | (begins > lengths)).any()):
                raise SteeringError(
                    f"response_start {begins.tolist()} is out of range: the rows have "
                    f"{lengths.tolist()} tokens, and an answer begins at 1 or later"
                )
            self._answer_begins = begins
        if self.kind == "span" and self.span[1] > int(lengths.max()):
            raise SteeringError(
                f"positions {self.span} are out of range: the longest text has "
                f"{int(lengths.max())} tokens. Use 'from:{self.span[0]}' for tokens yet to come"
            )

    def _selected(self, index: Tensor, real: Tensor) -> Tensor:
        if self.kind == "last":
            return index == torch.where(real, index, -1).max(dim=-1, keepdim=True).values
        if self.kind in ("all", "from", "span"):
            return (index >= self.span[0]) & (index < self.span[1])
        if self._answer_begins is None:
            raise SteeringError(
                f"positions {self.kind!r} need the pass that reads the prompt inside the with "
                "block; this pass began with a filled key-value cache"
            )
        after = index - (self._answer_begins.to(index)[:, None] - 1)
        if self.kind == "prompt":
            return after < 0
        return (after >= 0) & (after < self.span[1])


_WITHOUT_END = torch.iinfo(torch.int64).max


def _parsed(positions: Positions) -> tuple[str, tuple[int, int]]:
    """What kind of set this is, and its [start, end) of the text (or of the response)."""
    if isinstance(positions, str):
        if positions in ("all", "prompt", "response", "last"):
            return positions, (0, _WITHOUT_END)
        if k := re.fullmatch(r"first_response:([1-9]\d{0,8})", positions):
            return "first_response", (0, int(k[1]))
        if k := re.fullmatch(r"from:(\d{1,9})", positions):
            return "from", (int(k[1]), _WITHOUT_END)
    elif 0 <= positions[0] < positions[1]:
        return "span", positions
    raise SteeringError(
        f"positions must be one of {', '.join(POSITION_SETS)} with 0 <= start < end and K a "
        f"number; got {shown(positions)}"
    )


def _beams(batch: int, rows: int) -> str:
    """What to do where the batch has several rows for each of those expected."""
    n_beams, rest = divmod(batch, rows)
    return "" if rest else f". For {n_beams} beams a row, repeat each: repeat_interleave({n_beams})"


def _cached_length(cache: Any) -> int:
    return 0 if cache is None else int(cache.get_seq_length())

"""Which tokens an intervention writes to, known once per forward pass.

A tracker watches the calls of the Hugging Face model (under the bridge, where there is one), so it
sees prefill, cached decoding, and the attention mask of padded batches, whoever started the pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from persona.errors import SteeringError
from persona.models.writes import measuring
from steering.edits.calls import Call, length_after, read_call, require_finite_logits
from steering.edits.token_choice import Positions, chosen, parsed


class PositionTracker:
    """Holds the mask [batch pos] of the tokens to edit in the forward pass now running.

    positions: "all"; "answering" (the tokens that predict the answer: the last one of the prompt,
        and the answer); "answering:K" (the first K of them, which predict the answer's first K
        tokens); "asking" (all before them); "last" (the last token of each pass); "from:K" (token
        K of the text and all after it, decoded ones too); or a pair (start, end): tokens start to
        end - 1 of the text. Tokens of a text are counted from 0, pad tokens not among them. They
        are not named as the token sets that are read: an answer is read at its own tokens, and
        changed at those that predict it, one earlier.
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
        self.kind, self.span = parsed(positions)
        self.response_start = None if response_start is None else torch.tensor(response_start)
        self.first_token = first_token
        self.mask = None
        self.n_passes = 0
        self._named = positions
        self._end = 0
        self._call: Call | None = None
        self._seen: Tensor | None = (
            None  # which tokens of the running text are real, cached ones too
        )
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
    def watching(
        self, hf_model: Any, after_pass: Callable[[], None] = lambda: None
    ) -> Iterator[None]:
        """Recompute the mask at every forward pass of `hf_model` while open; then `after_pass`."""

        def after_forward(module: Any, args: Any, output: Any) -> None:
            if not measuring():
                self._after_forward(output)
                after_pass()

        # Not the wrapper of PEFT, whose `generate` calls the model under it alone.
        base = getattr(hf_model, "get_base_model", lambda: hf_model)()
        handles = [
            base.register_forward_pre_hook(self._before_forward, with_kwargs=True),
            base.register_forward_hook(after_forward),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.mask = None

    def _before_forward(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if measuring():
            return
        self.mask, self.n_passes = None, self.n_passes + 1
        call = read_call(module, args, kwargs)
        batch = len(call.real)
        if self.rows is not None and self.rows != batch:
            raise SteeringError(
                f"the edits have {self.rows} coefficients, one for each row, but the batch has "
                f"{batch} rows" + _beams(batch, self.rows)
            )
        if self.kind != "all" and not call.one_text_a_row:
            raise SteeringError(
                f"positions {self.kind!r} need a [batch, pos] attention mask: this pass has "
                "several texts in a row, or a window shorter than the text"
            )
        before = self._real_before(call)
        index = before[:, None] + call.real.long().cumsum(-1) - 1
        if call.past == 0 and not self._continues(call.tokens):
            self._begin(call)
        elif call.past:
            self._require_one_step(call)
        mask = call.real & self._selected(index, call.real)
        if not self.first_token:
            mask &= index > 0
        self.mask, self._end, self._call = mask, call.end, call

    def _after_forward(self, output: Any) -> None:
        """The cache that a pass gives back tells whether the tracker saw all that came before."""
        if self._call is not None:
            require_finite_logits(self._call, output)
        length = length_after(output)
        if length is not None and length != self._end:
            raise SteeringError(
                f"steering took this pass to end at token {self._end} of its text, but the cache "
                f"it gave back holds {length}: what came before was not seen, or attention did "
                "not keep it"
            )

    def _real_before(self, call: Call) -> Tensor:
        """[batch]: real tokens in the cache, from the passes before where the mask cannot say."""
        seen, before = self._seen, call.before
        if before is None:
            if seen is None or len(seen) != len(call.real) or seen.shape[1] < call.past:
                raise SteeringError(
                    "steering needs the pass that reads the prompt inside the with block, or a "
                    "[batch, pos] attention mask; this pass began with a filled key-value cache"
                )
            before = seen[:, : call.past].sum(-1)
        kept = None if seen is None or len(seen) != len(call.real) else seen[:, : call.past]
        if call.past == 0:
            self._seen = call.real
        elif kept is not None and kept.shape[1] == call.past:
            self._seen = torch.cat([kept, call.real], dim=1)
        else:
            self._seen = None
        return before

    def _continues(self, tokens: Tensor) -> bool:
        """Whether this uncached pass is the last one's texts and one more token: decoding.

        Beam search puts the rows of a text in another order; each then goes on with one of them.
        """
        last, self._last_text = self._last_text, tokens.detach()
        if last is None or last.ndim != tokens.ndim or len(last) != len(tokens):
            return False
        if tokens.shape[1] != last.shape[1] + 1:
            return False
        if torch.equal(tokens[:, :-1], last):
            return True
        same = (tokens[:, None, :-1] == last[None]).flatten(2).all(-1)  # [row, row of before]
        if not bool(same.any(-1).all()):
            return False
        if self._answer_begins is not None:
            self._answer_begins = self._answer_begins[same.int().argmax(-1)]
        return True

    def _require_one_step(self, call: Call) -> None:
        """Without `response_start`, more tokens at once are of the prompt, or guessed answers."""
        if call.real.shape[1] > 1 and (self.kind == "last" or self._guesses_the_answer):
            raise SteeringError(
                f"positions {self._named!r} cannot be told where a pass reads {call.real.shape[1]} "
                "tokens after a filled cache (a prompt in chunks, or assisted decoding)"
                + _ADVICE[self.kind == "last"]
            )

    @property
    def _guesses_the_answer(self) -> bool:
        """Whether what is decoded after the first pass is taken for the answer."""
        return self.kind in ("asking", "answering") and self.response_start is None

    def _begin(self, call: Call) -> None:
        """A new text: where its answer begins, and whether the positions lie inside it."""
        real = call.real
        lengths = real.sum(-1)
        if call.logits_to_keep > 1 and self._guesses_the_answer:
            raise SteeringError(
                f"positions {self._named!r} cannot be told where the first pass asks for logits at "
                f"{call.logits_to_keep} tokens (assisted decoding puts guessed answers there)"
                + _ADVICE[False]
            )
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
            return chosen(self.kind, self.span, index, index)
        if self._answer_begins is None:
            raise SteeringError(
                f"positions {self.kind!r} need the pass that reads the prompt inside the with "
                "block; this pass began with a filled key-value cache"
            )
        return chosen(self.kind, self.span, index, self._answer_begins.to(index)[:, None])


def _beams(batch: int, rows: int) -> str:
    """What to do where the batch has several rows for each of those expected."""
    n_beams, rest = divmod(batch, rows)
    return "" if rest else f". For {n_beams} beams a row, repeat each: repeat_interleave({n_beams})"


_ADVICE = {
    False: "; give response_start",
    True: "; take 'all', 'from:K' or 'answering' with response_start",
}

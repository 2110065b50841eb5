"""The one reader: what a model makes, in one pass, of text that is written already.

A pass over a batch gives the residual stream after blocks, reduced where it is read, and what is
predicted of every response token; neither is ever kept whole. A model here is a TransformerBridge,
a plain Hugging Face causal LM or a PeftModel, a side of a pair or not: each gives the same numbers.

Of a prediction the hidden state before the LM head is kept, d_model wide; log-probabilities are
made of it a slice of the tokens after the other, see `persona.models.readout`.

Shapes: B batch, P position, T tokens that are read of a batch, N response tokens of a batch, both
dialogue after dialogue; D d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.errors import DataError, ModelError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import (
    Hook,
    accepted_by,
    hf_model,
    hooked,
    is_bridge,
    model_width,
    resid_post,
)
from persona.models.hooks import n_layers as count_layers
from persona.models.readout import Predictions, Readout
from persona.progress import progress

LEAST_LOG_PROB = -6e4
"""What is impossible counts as this, so that it adds 0 to a KL where both models rule it out."""


@dataclass(frozen=True)
class Read:
    """The tokens of a batch that are read: dialogue after dialogue, in the order of the batch.

    rows, positions: [T]. counts: how many of each dialogue.
    """

    batch: Batch
    rows: Int[Tensor, " token"]
    positions: Int[Tensor, " token"]
    counts: list[int]

    @classmethod
    def of(cls, batch: Batch, places: Sequence[Sequence[int]]) -> Read:
        """places: for each dialogue of the whole list its tokens, counted from 0."""
        chosen = [places[i] for i in batch.indices]
        counts = [len(one) for one in chosen]
        rows = torch.repeat_interleave(torch.arange(len(chosen)), torch.tensor(counts))
        positions = torch.tensor([place for one in chosen for place in one], dtype=torch.long)
        return cls(batch, rows.to(batch.ids.device), positions.to(batch.ids.device), counts)

    def tokens(self, resid_BPD: Float[Tensor, "batch pos d"]) -> Float[Tensor, "token d"]:
        """The residual at these tokens, float32, where it lies."""
        device = resid_BPD.device  # of a spread model the blocks lie on several cards
        return resid_BPD[self.rows.to(device), self.positions.to(device)].float()

    def finite(self, resid_BPD: Float[Tensor, "batch pos d"]) -> Bool[Tensor, " token"]:
        """Which of these tokens hold numbers alone."""
        sums_BP = resid_BPD.sum(-1, dtype=torch.float32)
        return sums_BP[self.rows.to(sums_BP.device), self.positions.to(sums_BP.device)].isfinite()

    def dialogue(self, token: int) -> TokenizedDialogue:
        """Whose a token [T] is."""
        return self.batch.dialogues[int(self.rows[token])]


Reduce = Callable[[Float[Tensor, "batch pos d"]], Any]
Reducer = Callable[[Read], Reduce]
"""What is to be read of a batch -> what is kept of the residual stream after each block, where it
is read: nothing else of it stays."""


def every_token(read: Read) -> Reduce:
    """Keeps the residual of each token [T D], float32, on the CPU."""
    return lambda resid_BPD: read.tokens(resid_BPD).cpu()


def means_over(spans: Sequence[Sequence[tuple[int, int]]]) -> Reducer:
    """Keeps `span_means` of each batch."""
    return lambda read: span_means(read.batch, spans)


def span_means(batch: Batch, spans: Sequence[Sequence[tuple[int, int]]]) -> Reduce:
    """Residual [B P D] -> mean over each of S spans [start, end) of a dialogue [B S D], float32.

    spans: for each dialogue of the whole list as many.
    """
    chosen = [spans[i] for i in batch.indices]
    weights_BSP = torch.zeros(len(chosen), len(chosen[0]), batch.ids.shape[1])
    for row, of_dialogue in enumerate(chosen):
        for place, (start, end) in enumerate(of_dialogue):
            weights_BSP[row, place, start:end] = 1 / (end - start)
    device = batch.ids.device
    weights_BSP = weights_BSP.to(device)

    def reduce(resid_BPD: Tensor) -> Tensor:
        weights = weights_BSP.to(resid_BPD.device)
        at = "batch pos d_model, batch set pos -> batch set d_model"
        return einsum(resid_BPD.float(), weights, at).to(device)

    return reduce


@dataclass(frozen=True)
class Pass:
    """What one pass gave. kept: by layer asked for, what its reducer kept; predictions: of the
    response tokens, where they were asked for."""

    batch: Batch
    kept: list[Any]
    predictions: Predictions | None


@torch.no_grad()
def passes(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int] = (),
    places: Sequence[Sequence[int]] | None = None,
    reducer: Reducer = every_token,
    *,
    predict: bool = False,
    first: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading activations",
) -> Iterator[Pass]:
    """One pass for each batch of the dialogues: the loop under everything that reads text.

    layers: blocks whose output is reduced; a bridge stops after the last where nothing is
        predicted. places: for each dialogue the tokens that are read, default its response.
    first: so many batches are passed over; an earlier run has read them.
    Raises: DataError for no dialogues, or activations of tokens that are read which are not finite;
        ModelError for a layer out of range.
    """
    if not dialogues:
        raise DataError("there are no dialogues to read activations from")
    if layers or not predict:
        require_layers(model, layers)
    if predict:
        Readout.of(model)  # found before a hook is there to be fired
    if places is None:
        places = [range(*dialogue.response) for dialogue in dialogues]
    for batch in progress(model_batches(model, dialogues, token_budget)[first:], description):
        read = Read.of(batch, places)
        reduce = reducer(read)
        kept: dict[int, tuple[Any, Tensor]] = {}
        hooks = {layer: _keeping(kept, layer, read, reduce) for layer in layers}
        found = run_hooked(model, batch, hooks, predict=predict)
        _require_finite(model, read, {layer: finite for layer, (_, finite) in kept.items()})
        yield Pass(batch, [kept[layer][0] for layer in layers], found)


def _keeping(kept: dict[int, tuple[Any, Tensor]], layer: int, read: Read, reduce: Reduce) -> Hook:
    def hook(resid_BPD: Tensor) -> None:
        # Whether all is finite is asked after the pass: on a card each answer holds it up.
        kept[layer] = reduce(resid_BPD), read.finite(resid_BPD)

    return hook


@torch.no_grad()
def run_hooked(
    model: Any, batch: Batch, hooks: Mapping[int, Hook], *, predict: bool = False
) -> Predictions | None:
    """One pass with a hook at each block output given; without `predict` stopped after the last."""
    with hooked(model, [(resid_post(layer), hook) for layer, hook in hooks.items()]):
        if predict:
            return predictions(model, batch)
        run_to(model, batch, max(hooks) + 1)
    return None


def run_to(model: Any, batch: Batch, n_blocks: int) -> None:
    """One pass through the first blocks; a plain model, and a bridge asked for all, runs whole."""
    if not is_bridge(model):
        few = {"logits_to_keep": 1} if "logits_to_keep" in accepted_by(model) else {}
        model(input_ids=batch.ids, use_cache=False, **few, **batch.options)
    elif n_blocks < int(model.cfg.n_layers):
        options = {"stop_at_layer": n_blocks, **batch.options}
        model(batch.ids, return_type=None, use_cache=False, **options)
    else:  # no stop means logits: then one position's will do
        options = {"logits_to_keep": 1, **batch.options}
        model(batch.ids, return_type=None, use_cache=False, **options)


def require_layers(model: Any, layers: Sequence[int]) -> None:
    """Raise ModelError unless the model has every one of these blocks, at least one."""
    n_layers = count_layers(model)
    if not layers:
        raise ModelError(f"no layer was asked for: the model has blocks 0 to {n_layers - 1}")
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise ModelError(
                f"layer {layer} is out of range: the model has blocks 0 to {n_layers - 1}"
            )


def _require_finite(model: Any, read: Read, finite: Mapping[int, Bool[Tensor, " token"]]) -> None:
    """Raises: DataError that names the text and the block, and what to do about it."""
    device = read.batch.ids.device
    if not finite or torch.stack([one.all().to(device) for one in finite.values()]).all():
        return
    layer, one = next((layer, one) for layer, one in finite.items() if not one.all())
    dialogue = read.dialogue(int((~one).nonzero()[0]))
    # Another format helps only where it is not float32.
    wide = next(hf_model(model).parameters()).dtype == torch.float32
    advice = "the weights hold NaN, or values too large for any format"
    raise DataError(
        f"activations of text {dialogue.id!r} at {resid_post(layer)} are not finite; "
        f"{advice if wide else 'try --dtype float32'}"
    )


def log_probs(
    logits: Float[Tensor, "*position vocabulary"],
) -> Float[Tensor, "*position vocabulary"]:
    """Log-probabilities of logits, float32."""
    return logits.float().log_softmax(-1)


def kl_nats(
    reference: Float[Tensor, "*position vocabulary"], other: Float[Tensor, "*position vocabulary"]
) -> Float[Tensor, "*position"]:
    """KL(reference || other) at every position, of log-probabilities; what both rule out is 0."""
    reference = reference.to(other.device).clamp(min=LEAST_LOG_PROB)
    return (reference.exp() * (reference - other.clamp(min=LEAST_LOG_PROB))).sum(-1)


def chosen(
    table: Float[Tensor, "*position vocabulary"], ids: Int[Tensor, "*position"]
) -> Float[Tensor, "*position"]:
    """The log-probability of the token that stands there, at every position."""
    return table.gather(-1, ids[..., None].to(table.device))[..., 0]


def predictions(model: Any, batch: Batch) -> Predictions:
    """One pass, kept where the batch's response tokens are predicted; gradients flow."""
    rows, positions = batch.predicting
    return Readout.of(model).predict(model, batch.ids, rows, positions, **batch.options)


def predicted_log_probs(model: Any, batch: Batch) -> Float[Tensor, "token vocabulary"]:
    """Log-probabilities [N V] at the batch's response tokens, all at once; gradients flow."""
    return log_probs(Readout.of(model).logits(predictions(model, batch).hidden))


@dataclass(frozen=True)
class Reference:
    """What a model predicts of dialogues: what KL is taken from.

    readout: its head as it was, whatever becomes of the model, see `Readout.pinned`.
    hidden: place of a dialogue -> what the head is given at its response tokens [n d_model].
    """

    readout: Readout
    hidden: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def over(
        cls,
        model: Any,
        dialogues: Sequence[TokenizedDialogue],
        *,
        stays: bool = True,
        token_budget: int = DEFAULT_TOKEN_BUDGET,
        description: str = "Reading the reference",
    ) -> Reference:
        """What the model, as it stands, predicts of each dialogue.

        stays: whether the model is in memory as long as this is used.
        """
        reference = cls(Readout.of(model).pinned(model_stays=stays))
        options: dict[str, Any] = {"token_budget": token_budget, "description": description}
        for one in passes(model, dialogues, predict=True, **options):
            assert one.predictions is not None
            reference.keep(one.batch, one.predictions)
        return reference

    def keep(self, batch: Batch, found: Predictions, wanted: Sequence[bool] | None = None) -> None:
        """Keeps the predictions of a batch, of the dialogues that are wanted."""
        for i, part in zip(batch.indices, found.hidden.split(batch.counts), strict=True):
            if wanted is None or wanted[i]:
                self.hidden[i] = part.detach().clone()

    def of(self, batch: Batch) -> tuple[Tensor | None, Bool[Tensor, " token"]]:
        """What the head is given [N D], 0 where it is not known, and where it is.

        Not known is a dialogue that was not kept, or whose answer has another number of tokens
        here.
        """
        known = [
            i in self.hidden and len(self.hidden[i]) == n
            for i, n in zip(batch.indices, batch.counts, strict=True)
        ]
        known_N = torch.repeat_interleave(torch.tensor(known), torch.tensor(batch.counts))
        if not any(known):
            return None, known_N
        like = next(iter(self.hidden.values()))
        parts = [
            self.hidden[i] if there else like.new_zeros(n, like.shape[1])
            for i, there, n in zip(batch.indices, known, batch.counts, strict=True)
        ]
        return torch.cat(parts), known_N

    def log_probs(self, hidden: Float[Tensor, "token d"]) -> Float[Tensor, "token vocabulary"]:
        """Log-probabilities of the model, of what its head is given."""
        return log_probs(self.readout.logits(hidden))


@torch.no_grad()
def token_readings(
    readout: Readout,
    found: Sequence[Predictions],
    batch: Batch,
    reference: Reference | None = None,
) -> tuple[Float[Tensor, "pass token"], Float[Tensor, "pass token"]]:
    """Log-probability of each response token and KL(reference || pass), nats, by pass over a batch.

    Float64 on the CPU; the KL is NaN where there is no reference. A slice of the tokens of all
    passes is read before the next, so that the reference is made once.
    Raises: ModelError where the head gives other logits than the model did in its pass.
    """
    n = sum(batch.counts)
    log_prob = torch.empty(len(found), n, dtype=torch.float64)
    kl = torch.full((len(found), n), torch.nan, dtype=torch.float64)
    aligned_ND, known_N = (None, None) if reference is None else reference.of(batch)
    for part in readout.slices(n) if found else ():
        expected, known = None, None
        if reference is not None and aligned_ND is not None and known_N is not None:
            known = known_N[part]
            expected = reference.log_probs(aligned_ND[part][known.to(aligned_ND.device)])
        for place, one in enumerate(found):
            table = log_probs(readout.checked_logits(one, part))
            log_prob[place, part] = chosen(table, batch.targets[part]).double().cpu()
            if expected is not None and known is not None:
                here = table[known.to(table.device)]
                kl[place, part][known] = kl_nats(expected, here).double().cpu()
    return log_prob, kl


@dataclass(frozen=True)
class ResponseReadings:
    """By dialogue, in the order given; each mean is over its response tokens.

    log_prob: mean log-probability of a token, nats. kl: mean KL(reference || model), nats per
    token, NaN without a reference. means: mean residual after each block asked for, float32.
    """

    log_prob: NDArray[np.float64]
    kl: NDArray[np.float64]
    means: Float[Tensor, "dialogue layer d_model"]


def read_responses(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int] = (),
    *,
    reference: Reference | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading answers",
) -> ResponseReadings:
    """What the model, as it stands, makes of every response, in one pass.

    Raises: as `passes`; ModelError for what edits the LM head.
    """
    n = len(dialogues)
    log_prob, kl = np.full(n, np.nan), np.full(n, np.nan)
    means = torch.empty(n, len(layers), model_width(model))
    spans = means_over([[dialogue.response] for dialogue in dialogues])
    options: dict[str, Any] = {"token_budget": token_budget, "description": description}
    for one in passes(model, dialogues, layers, None, spans, predict=True, **options):
        assert one.predictions is not None
        at = list(one.batch.indices)
        found = token_readings(Readout.of(model), [one.predictions], one.batch, reference)
        log_prob[at], kl[at] = (one.batch.means(values[0]) for values in found)
        for place, of_layer in enumerate(one.kept):
            means[at, place] = of_layer[:, 0].cpu()
    return ResponseReadings(log_prob, kl, means)

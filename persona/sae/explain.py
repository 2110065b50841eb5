"""What a latent stands for: where it fires, and which tokens it makes more and less likely.

Shapes: V vocabulary, D d_model, K latents asked for, N tokens of a text.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.activations.passes import Read, Reduce, passes
from persona.errors import DataError
from persona.models.pair import SIDES, ModelPair, Side
from persona.readouts.lens import LogitLens
from persona.sae.autoencoder import SparseAutoencoder
from persona.sae.texts import Text

N_EXAMPLES = 12
WINDOW_BEFORE, WINDOW_AFTER = 24, 12
N_BINS = 24
N_TOKENS_SHOWN = 10


@dataclass(frozen=True)
class ActivatingExample:
    """A stretch of text around the token on which a latent fires most in that text.

    tokens, values: the stretch and the latent's activation on each token; peak: its place in it.
    """

    text_id: str
    kind: str
    side: Side
    tokens: tuple[str, ...]
    values: tuple[float, ...]
    peak: int

    @property
    def activation(self) -> float:
        return self.values[self.peak]


@dataclass(frozen=True)
class TokenEffect:
    """A token, and how much a latent raises its logit above the mean of all (arbitrary units)."""

    token: str
    logit: float


@dataclass(frozen=True)
class LatentPage:
    """Everything that a page on one latent shows.

    frequency, mean: share of tokens it fires on and its mean activation over all, by side.
    edges, counts: histogram of its activations above 0; counts by side.
    """

    latent: int
    frequency: Mapping[str, float]
    mean: Mapping[str, float]
    n_tokens: int
    edges: tuple[float, ...]
    counts: Mapping[str, tuple[int, ...]]
    examples: tuple[ActivatingExample, ...]
    promoted: tuple[TokenEffect, ...]
    suppressed: tuple[TokenEffect, ...]


def explain_latents(
    pair: ModelPair,
    sae: SparseAutoencoder,
    latents: Sequence[int],
    texts: Sequence[Text],
    *,
    n_examples: int = N_EXAMPLES,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> list[LatentPage]:
    """What each of the latents does in both models on the texts, and what it promotes.

    Raises: DataError for no texts or a latent that is out of range.
    """
    sae.require_latents(latents)
    if not texts:
        raise DataError("there is no text to look for examples in")
    chosen = list(dict.fromkeys(latents))
    seen = {side: _activations(pair, side, sae, chosen, texts, token_budget) for side in SIDES}
    lens = logit_lens(pair, sae, chosen)
    decoded = _Decoded(pair.tokenizer)
    pages = []
    for place, latent in enumerate(chosen):
        values = {side: [rows[:, place] for rows in seen[side]] for side in SIDES}
        flat = {side: np.concatenate(values[side]) for side in SIDES}
        edges, counts = _histogram(flat)
        promoted, suppressed = _extremes(lens[place], pair.tokenizer)
        pages.append(
            LatentPage(
                latent,
                {side: float((v > 0).mean()) for side, v in flat.items()},
                {side: float(v.mean()) for side, v in flat.items()},
                len(flat["aligned"]),
                edges,
                counts,
                _top_examples(values, texts, decoded, n_examples),
                promoted,
                suppressed,
            )
        )
    return pages


@torch.no_grad()
def _activations(
    pair: ModelPair,
    side: Side,
    sae: SparseAutoencoder,
    latents: Sequence[int],
    texts: Sequence[Text],
    token_budget: int,
) -> list[NDArray[np.float32]]:
    """By text: activations [N K] on the tokens of its span."""
    found: list[NDArray[np.float32]] = [np.empty((0, len(latents)), np.float32)] * len(texts)
    at = torch.tensor(latents)

    def reducer(read: Read) -> Reduce:
        def reduce(resid_BPD: Tensor) -> list[Tensor]:
            parts = [sae.encode(part) for part in read.tokens(resid_BPD).split(read.counts)]
            return [latents_NF[:, at.to(latents_NF.device)].cpu() for latents_NF in parts]

        return reduce

    dialogues, places = [text.tokens for text in texts], [range(*text.span) for text in texts]
    with pair.active(side) as model:
        for one in passes(
            model,
            dialogues,
            [sae.layer],
            places,
            reducer,
            token_budget=token_budget,
            description=f"Looking for examples ({side})",
        ):
            for i, part in zip(one.batch.indices, one.kept[0], strict=True):
                found[i] = part.numpy()
    return found


def _top_examples(
    values: Mapping[Side, Sequence[NDArray[np.float32]]],
    texts: Sequence[Text],
    decoded: _Decoded,
    n: int,
) -> tuple[ActivatingExample, ...]:
    """The texts with the highest peak, each once, in the model where it is higher."""
    peaks = []
    for i in range(len(texts)):
        side = max(SIDES, key=lambda side: float(values[side][i].max()))
        top = float(values[side][i].max())
        if top > 0:
            peaks.append((top, -i, side))
    found = []
    for _, negative, side in heapq.nlargest(n, peaks):
        i = -negative
        text, row = texts[i], values[side][i]
        place = int(row.argmax())
        first, last = max(place - WINDOW_BEFORE, 0), min(place + WINDOW_AFTER + 1, len(row))
        ids = text.tokens.ids[text.span[0] + first : text.span[0] + last]
        found.append(
            ActivatingExample(
                text.tokens.id,
                text.kind,
                side,
                decoded.pieces(ids),
                tuple(float(v) for v in row[first:last]),
                place - first,
            )
        )
    return tuple(found)


class _Decoded:
    """Token ids as the pieces of text they add, characters of several tokens kept whole."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def pieces(self, ids: Sequence[int]) -> tuple[str, ...]:
        pieces, shown = [], ""
        for end in range(1, len(ids) + 1):
            text = self._tokenizer.decode(list(ids[:end]), clean_up_tokenization_spaces=False)
            # An unfinished character comes with the token that completes it.
            whole = text.rstrip("\ufffd") if end < len(ids) else text
            pieces.append(whole[len(shown) :] if whole.startswith(shown) else whole)
            shown = whole if whole.startswith(shown) else shown
        return tuple(pieces)


def _histogram(
    flat: Mapping[Side, NDArray[np.float32]],
) -> tuple[tuple[float, ...], dict[str, tuple[int, ...]]]:
    top = max(float(v.max()) for v in flat.values())
    edges = np.linspace(0, top if top > 0 else 1.0, N_BINS + 1)
    counts = {
        str(side): tuple(int(c) for c in np.histogram(v[v > 0], edges)[0])
        for side, v in flat.items()
    }
    return tuple(float(edge) for edge in edges), counts


@torch.no_grad()
def logit_lens(
    pair: ModelPair, sae: SparseAutoencoder, latents: Sequence[int]
) -> Float[Tensor, "latent vocabulary"]:
    """What each latent's decoder row alone adds to the logits, less its mean over the vocabulary.

    Rows of unit length are read by the aligned model's `LogitLens`: the size means nothing.
    """
    sae.require_latents(latents)
    rows = sae.decoder[list(latents)].float().cpu()
    with pair.active("aligned") as bridge:
        lens = LogitLens.of(bridge)
    return lens.logits(rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12), sae.layer)


def _extremes(
    logits: Float[Tensor, " vocabulary"], tokenizer: Any
) -> tuple[tuple[TokenEffect, ...], tuple[TokenEffect, ...]]:
    """(promoted, suppressed) tokens, the strongest first."""
    n = min(N_TOKENS_SHOWN, len(logits) // 2, len(tokenizer))
    real = logits[: len(tokenizer)]  # an unembedding may be padded beyond the vocabulary
    order = real.argsort(descending=True).tolist()

    def effect(i: int) -> TokenEffect:
        return TokenEffect(tokenizer.decode([i]), float(real[i]))

    return tuple(map(effect, order[:n])), tuple(map(effect, order[::-1][:n]))

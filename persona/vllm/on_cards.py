"""What a model takes on cards, by arithmetic: whether it fits, how much waits in the cache, and how
soon answers can be there at the earliest.

Nothing is measured. Weights and cache are counted exactly for a dense model in bfloat16; the time
is a lower bound, of what must be read from the cards' memory for each token and of the products
that must be computed. Eager mode, which edits need, and small batches take longer.

Source: Pope et al. 2022 ("Efficiently Scaling Transformer Inference"), for the two bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from persona.errors import EngineError

BYTES = 2
"""Of a number in bfloat16."""
USED = 0.9
"""Share of a card's memory that vLLM takes by default."""
ROOM = 2e9
"""For activations and what a card's driver keeps; bytes a card."""
MOST_AT_ONCE = 256
"""Requests that vLLM computes together by default."""


@dataclass(frozen=True)
class Card:
    """A kind of card, as its maker states it.

    memory: bytes. bandwidth: bytes a second. products: operations of dense bfloat16 a second.
    """

    name: str
    memory: float
    bandwidth: float
    products: float


@dataclass(frozen=True)
class Shape:
    """What of a model decides its size.

    Keys and values of a token are 2 x n_layers x n_kv_heads x head_dim numbers.
    """

    name: str
    n_parameters: float
    n_layers: int
    n_kv_heads: int
    head_dim: int

    @property
    def bytes_a_token(self) -> float:
        """Of cache."""
        return 2.0 * self.n_layers * self.n_kv_heads * self.head_dim * BYTES


CARDS: Mapping[str, Card] = MappingProxyType(
    {
        "A100": Card("A100 80 GB", 80e9, 2.0e12, 312e12),
        "H100": Card("H100 80 GB", 80e9, 3.35e12, 989e12),
        "H200": Card("H200 141 GB", 141e9, 4.8e12, 989e12),
    }
)
SHAPES = (
    Shape("8B (Llama 3.1)", 8.03e9, 32, 8, 128),
    Shape("32B (Qwen 3)", 32.8e9, 64, 8, 128),
    Shape("70B (Llama 3.1)", 70.6e9, 80, 8, 128),
)


@dataclass(frozen=True)
class OnCards:
    """What a model takes.

    weights: bytes a card. cache_tokens: that fit beside them, on all cards together; 0 or less
    where the model does not fit. at_once: requests computed together. seconds: of a thousand
    answers, at the least.
    """

    weights: float
    cache_tokens: float
    at_once: int
    seconds: float

    @property
    def fits(self) -> bool:
        """Whether at least one request does."""
        return self.at_once >= 1


def on_cards(
    shape: Shape, card: Card, n_cards: int, *, prompt_tokens: int = 100, new_tokens: int = 100
) -> OnCards:
    """What a model takes on so many cards of one kind.

    Raises: EngineError for less than one card.
    """
    if n_cards < 1:
        raise EngineError(f"a model is held by one card or more; got {n_cards}")
    weights = shape.n_parameters * BYTES / n_cards
    cache_tokens = n_cards * (USED * card.memory - ROOM - weights) / shape.bytes_a_token
    at_once = int(min(MOST_AT_ONCE, max(0.0, cache_tokens / (prompt_tokens + new_tokens))))
    if not at_once:
        return OnCards(weights, cache_tokens, 0, float("inf"))
    held = at_once * (prompt_tokens + new_tokens / 2) * shape.bytes_a_token / n_cards
    products = 2 * shape.n_parameters / (n_cards * card.products)
    step = max((weights + held) / card.bandwidth, at_once * products)
    seconds = 1000 * (new_tokens * step / at_once + prompt_tokens * products)
    return OnCards(weights, cache_tokens, at_once, seconds)


def in_words(shape: Shape, card: Card, n_cards: int) -> str:
    """One line, such as a plan shows."""
    found = on_cards(shape, card, n_cards)
    where = f"{n_cards} card{'s' * (n_cards > 1)} ({card.name})"
    if not found.fits:
        return (
            f"vLLM: {shape.name} does not fit on {where}: its weights take "
            f"{found.weights / 1e9:.1f} GB of each"
        )
    return (
        f"vLLM on {where}: {found.weights / 1e9:.1f} GB of weights a card, cache for "
        f"{found.cache_tokens:,.0f} tokens, 1,000 answers of 100 tokens no sooner than "
        f"{found.seconds:.0f} s (arithmetic, nothing measured)"
    )


def table_on_cards(card: Card = CARDS["H100"], counts: tuple[int, ...] = (1, 2, 8)) -> str:
    """The shapes on so many cards, as a Markdown table."""
    lines = [
        f"| bfloat16, {card.name} | cards | weights a card | cache, tokens "
        "| 1,000 answers, at least |",
        "|---|---:|---:|---:|---:|",
    ]
    for shape in SHAPES:
        for n in counts:
            found = on_cards(shape, card, n)
            rest = (
                f"{found.cache_tokens:,.0f} | {found.seconds:.0f} s"
                if found.fits
                else "does not fit | –"
            )
            lines.append(f"| {shape.name} | {n} | {found.weights / 1e9:.0f} GB | {rest} |")
    return "\n".join(lines)

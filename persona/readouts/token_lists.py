"""Which tokens a direction makes likelier, beside what chance makes likelier.

Two chances. *Signs*, of many texts each of which gives a row, such as what a fine-tune did to its
activations: the same rows with signs drawn anew, for were the two models one, either could have
been called the fine-tuned one. It asks whether a token's logit moved at all, and where the models
differ nearly every token's did. *Shape*: directions drawn at random, as the activations vary where
their covariance is given. It asks whether the direction points to a token more than any direction
does to its nearest. A token has to pass both.

The strongest of all tokens under chance is what a token is held against, so that p is for the whole
list: with nothing there, one list in twenty shows a token with p at most 0.05.

Shapes: N texts, D d_model, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from persona.errors import DataError
from persona.readouts.lens import Lens

N_SHOWN = 10
N_DRAWS = 1000
MIN_TEXTS = 8
"""Of fewer, signs cannot be drawn anew in a hundred ways."""
ALPHA = 0.05


@dataclass(frozen=True)
class ReadToken:
    """One token of a list.

    effect: what is added to its logit, in the lens's units; only comparable within a list.
    p: family-wise over the vocabulary, both signs, against signs drawn anew; of a direction that
        came alone against random directions. p_shaped: against random directions where `p` is
        against signs, None where no covariance was given. p_beyond_twin: as `p`, of what the
        fine-tune does beyond its good twin; None where there is no twin.
    """

    token: str
    id: int
    effect: float
    p: float
    p_beyond_twin: float | None = None
    p_shaped: float | None = None

    @property
    def beats_chance(self) -> bool:
        """Whether it is neither chance nor what the good twin does as well."""
        return all(p is None or p <= ALPHA for p in (self.p, self.p_beyond_twin, self.p_shaped))


@dataclass(frozen=True)
class TokenList:
    """The tokens that a direction promotes and suppresses most, the strongest first.

    source: what was read. n: texts it is a mean over, 0 for a direction that came alone.
    n_significant: tokens of the whole vocabulary that beat chance, each of its p at most `ALPHA`.
    """

    source: str
    lens: str
    layer: int
    n: int
    promoted: tuple[ReadToken, ...]
    suppressed: tuple[ReadToken, ...]
    n_significant: int

    @property
    def beats_chance(self) -> bool:
        """Whether any token that is shown does."""
        return any(token.beats_chance for token in (*self.promoted, *self.suppressed))


def tokens_of_differences(
    source: str,
    lens: Lens,
    layer: int,
    differences: Float[Tensor, "text d_model"],
    tokenizer: Any,
    *,
    beyond_twin: Float[Tensor, "text d_model"] | None = None,
    covariance: Float[Tensor, "d_model d_model"] | None = None,
    n_shown: int = N_SHOWN,
    seed: int = 0,
) -> TokenList:
    """The tokens of the mean of paired differences; text by text the sign is drawn anew for chance.

    A token's statistic is its mean over texts in standard errors. Listed are, of the tokens that
    stand out at `ALPHA`, those with the largest mean; where there are fewer, the others after them.
    differences: fine-tuned minus aligned. beyond_twin: the same less what the good twin does.
    covariance: of the activations; given, the mean is held against directions drawn with it too.
    Raises: DataError for fewer than 8 texts.
    """
    require_texts(len(differences), "tokens")
    means, p = sign_flips(lens.logits(differences, layer), seed)
    p_twin = None
    if beyond_twin is not None:
        _, p_twin = sign_flips(lens.logits(beyond_twin, layer), seed)
    p_shaped = None
    if covariance is not None:
        p_shaped = _shaped(lens, layer, differences.mean(0), covariance, seed)
    found = _Effects(means, p, p_twin, p_shaped)
    return _listed(source, lens, layer, len(differences), found, tokenizer, n_shown)


def require_texts(n: int, of: str) -> None:
    """Raises: DataError for too few texts to draw signs anew."""
    if n < MIN_TEXTS:
        raise DataError(
            f"a list of {of} takes {MIN_TEXTS} texts or more to tell it from chance; got {n}"
        )


def tokens_of_direction(
    source: str,
    lens: Lens,
    layer: int,
    row: Float[Tensor, " d_model"],
    tokenizer: Any,
    *,
    covariance: Float[Tensor, "d_model d_model"] | None = None,
    n_shown: int = N_SHOWN,
    seed: int = 0,
) -> TokenList:
    """The tokens of a direction that comes without texts, beside random directions.

    A token's statistic is its effect in standard deviations over the vocabulary.
    covariance: of the activations; random directions are drawn with it, isotropic without.
    Raises: DataError for a row of zeros.
    """
    if not float(row.norm()) > 0:
        raise DataError(f"the direction of {source} is zero at block {layer}")
    found = _Effects(lens.logits(row[None], layer)[0], _shaped(lens, layer, row, covariance, seed))
    return _listed(source, lens, layer, 0, found, tokenizer, n_shown)


@dataclass(frozen=True)
class _Effects:
    """By token: what is added to its logit, and each p, None where it was not asked for."""

    effects: Float[Tensor, " vocabulary"]
    p: Float[Tensor, " vocabulary"]
    p_beyond_twin: Float[Tensor, " vocabulary"] | None = None
    p_shaped: Float[Tensor, " vocabulary"] | None = None

    def first(self, n: int) -> _Effects:
        """Of the first n tokens: an unembedding may be padded beyond the vocabulary."""
        every = (self.effects, self.p, self.p_beyond_twin, self.p_shaped)
        return _Effects(*(None if one is None else one[:n] for one in every))  # type: ignore[arg-type]

    @property
    def stands_out(self) -> Bool[Tensor, " vocabulary"]:
        found = self.p <= ALPHA
        for more in (self.p_beyond_twin, self.p_shaped):
            found = found if more is None else found & (more <= ALPHA)
        return found


def _shaped(
    lens: Lens, layer: int, row: Tensor, covariance: Tensor | None, seed: int
) -> Float[Tensor, " vocabulary"]:
    """Family-wise p of each token of a direction against random directions."""
    effects = lens.logits(row[None], layer)[0]
    strongest = _random_extremes(lens, layer, len(row), covariance, seed)
    return _family_wise((effects / effects.std()).abs(), strongest)


def sign_flips(
    logits_NV: Float[Tensor, "text vocabulary"], seed: int
) -> tuple[Float[Tensor, " vocabulary"], Float[Tensor, " vocabulary"]]:
    """(mean effect, family-wise p) of each token, or of whatever the columns are.

    Source: Westfall and Young 1993 (max-T by resampling).
    """
    n = len(logits_NV)
    squares_V = logits_NV.pow(2).mean(0)

    def statistic(mean: Tensor) -> Tensor:
        variance = (squares_V - mean.pow(2)).clamp(min=1e-12 * float(squares_V.max()) + 1e-30)
        return mean.abs() / (variance / (n - 1)).sqrt()

    generator = torch.Generator().manual_seed(seed)
    strongest = []
    for start in range(0, N_DRAWS, 50):
        signs = torch.randint(0, 2, (min(50, N_DRAWS - start), n), generator=generator) * 2.0 - 1
        strongest.append(statistic(signs @ logits_NV / n).amax(-1))
    means_V = logits_NV.mean(0)
    return means_V, _family_wise(statistic(means_V), torch.cat(strongest))


def _random_extremes(
    lens: Lens, layer: int, d_model: int, covariance: Tensor | None, seed: int
) -> Float[Tensor, " draw"]:
    """The strongest token, in standard deviations over the vocabulary, of random directions."""
    generator = torch.Generator().manual_seed(seed)
    root = None
    if covariance is not None:
        values, vectors = torch.linalg.eigh(covariance.double())
        root = (vectors * values.clamp(min=0).sqrt()).T.float()
    strongest = []
    for start in range(0, N_DRAWS, 50):
        draws = torch.randn(min(50, N_DRAWS - start), d_model, generator=generator)
        effects = lens.logits(draws if root is None else draws @ root, layer)
        strongest.append((effects / effects.std(-1, keepdim=True)).abs().amax(-1))
    return torch.cat(strongest)


def _family_wise(
    statistic: Float[Tensor, " vocabulary"], strongest: Float[Tensor, " draw"]
) -> Float[Tensor, " vocabulary"]:
    """Share of draws whose strongest token is at least as strong, the one seen among them."""
    ranked = strongest.sort().values
    below = torch.searchsorted(ranked, statistic.contiguous())
    return (1 + len(ranked) - below) / (1 + len(ranked))


def _listed(
    source: str,
    lens: Lens,
    layer: int,
    n: int,
    found: _Effects,
    tokenizer: Any,
    n_shown: int,
) -> TokenList:
    found = found.first(min(len(tokenizer), len(found.effects)))
    effects, stands_out = found.effects, found.stands_out

    def most(sign: float) -> tuple[ReadToken, ...]:
        right = sign * effects > 0
        rank = sign * effects + stands_out * float(2 * effects.abs().max())
        order = rank.masked_fill(~right, -torch.inf).argsort(descending=True)[:n_shown]
        return tuple(
            ReadToken(
                tokenizer.decode([i]),
                i,
                float(effects[i]),
                float(found.p[i]),
                None if found.p_beyond_twin is None else float(found.p_beyond_twin[i]),
                None if found.p_shaped is None else float(found.p_shaped[i]),
            )
            for i in order.tolist()
            if right[i]
        )

    return TokenList(source, lens.name, layer, n, most(1.0), most(-1.0), int(stands_out.sum()))


def in_common(first: Sequence[ReadToken], second: Sequence[ReadToken]) -> float:
    """Share of the tokens of one list that the other shows as well; NaN for an empty list."""
    if not first:
        return float("nan")
    return len({token.id for token in first} & {token.id for token in second}) / len(first)

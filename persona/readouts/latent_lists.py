"""Which latents of an autoencoder a fine-tune makes fire more, beside what chance does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from persona.readouts.token_lists import ALPHA, require_texts, sign_flips

N_SHOWN = 8


@dataclass(frozen=True)
class RisingLatent:
    """One latent. rise: of its mean activation, in the units of the autoencoder.

    p: family-wise over all latents, both signs, against signs drawn anew text by text.
    words: tokens that its decoder row makes likelier, the strongest first.
    """

    latent: int
    rise: float
    p: float
    words: tuple[str, ...]

    @property
    def beats_chance(self) -> bool:
        return self.p <= ALPHA


@dataclass(frozen=True)
class LatentList:
    """The latents that rise most on some texts. n_significant: of all that rise or fall."""

    source: str
    layer: int
    n: int
    rising: tuple[RisingLatent, ...]
    n_significant: int


def latents_of_differences(
    source: str,
    layer: int,
    differences: Float[Tensor, "text latent"],
    words_of: Callable[[Sequence[int]], Sequence[tuple[str, ...]]],
    *,
    n_shown: int = N_SHOWN,
    seed: int = 0,
) -> LatentList:
    """The latents whose mean activation rises most; of those beyond chance first.

    differences: fine-tuned minus aligned. words_of: latents -> the words of each.
    Raises: DataError for fewer than 8 texts.
    """
    require_texts(len(differences), "latents")
    means, p = sign_flips(differences, seed)
    rank = means + (p <= ALPHA) * float(2 * means.abs().max())
    order = [i for i in rank.argsort(descending=True).tolist() if means[i] > 0][:n_shown]
    words = words_of(order) if order else []
    rising = tuple(
        RisingLatent(i, float(means[i]), float(p[i]), tuple(said))
        for i, said in zip(order, words, strict=True)
    )
    return LatentList(source, layer, len(differences), rising, int((p <= ALPHA).sum()))

"""Does a trait's vector tell answers for the trait from answers against it, beyond their surface?

Everything is made of one half of the questions and scored on the other. The answers are read
without the instructions that drew them. Questions are resampled whole, and the vector and a
baseline on the same resamples.

Vectors made of shuffled poles are compared by their cosine with the other half's mean difference,
not by their AUROC: where the poles lie far apart, one direction in two tells them perfectly.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persona.errors import DataError
from persona.intervals import beyond_draws
from persona.traits.trait_facts import PoleTexts, TraitReading
from probes.evaluation.baselines import bag_of_words, text_lengths
from probes.evaluation.metrics import Array, auroc, estimate_of, group_weights

N_RESAMPLES = 2000
N_SWAPS = 1000


def read_trait(
    rows: Float[Tensor, "answer d_model"],
    proving: PoleTexts,
    vector: Float[Tensor, " d_model"],
    shuffled: Float[Tensor, "draw d_model"],
    making: PoleTexts,
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> TraitReading:
    """Vector, words and length on the answers that prove.

    rows: the proving answers, read without instruction at the vector's block.
    vector, shuffled: the mean difference of the making answers, and those of shuffled poles.
    making: the texts that the vector was made of, which words and lengths learn from.
    Raises: DataError where one pole has no answer.
    """
    for name, texts in (("making", making), ("proving", proving)):
        if texts.shows.all() or not texts.shows.any():
            raise DataError(f"the {name} answers are of one pole; both are needed to tell them")
    projections = (rows.double() @ vector.double()).numpy()
    _, groups = np.unique(np.asarray(proving.questions), return_inverse=True)
    weights = group_weights(groups, n_resamples, np.random.default_rng(seed))

    def measured(scores: Array) -> Array:
        return auroc(np.asarray(scores, dtype=float), proving.shows, weights)

    n = len(set(proving.questions))
    own = measured(projections)
    words = measured(_words(making, proving))
    length = measured(_lengths(making, proving))
    shows = torch.tensor(proving.shows)
    gap = rows[shows].double().mean(0) - rows[~shows].double().mean(0)
    cosine = float(torch.cosine_similarity(vector.double(), gap, dim=-1))
    of_shuffled = torch.cosine_similarity(shuffled.double(), gap[None], dim=-1).numpy()
    swaps = _swapped(projections, proving, groups, seed)
    return TraitReading(
        estimate_of(own, n),
        estimate_of(words, n),
        estimate_of(length, n),
        estimate_of(own - words, n),
        estimate_of(own - length, n),
        float(np.percentile(swaps, 97.5)),
        beyond_draws(float(own[0]), swaps),
        cosine,
        float(np.percentile(of_shuffled, 97.5)),
    )


def _swapped(projections: Array, proving: PoleTexts, groups: NDArray[np.intp], seed: int) -> Array:
    """[swap]: AUROC of the same projections, the poles of each question swapped by a fair coin."""
    rng = np.random.default_rng(seed + 1)
    once = np.ones((1, len(projections)))
    coins = rng.random((N_SWAPS, int(groups.max()) + 1)) < 0.5
    return np.array([auroc(projections, proving.shows ^ coin[groups], once)[0] for coin in coins])


def _words(making: PoleTexts, proving: PoleTexts) -> Array:
    fitted = bag_of_words().fit(list(making.answers), making.shows)
    return np.asarray(fitted.decision_function(list(proving.answers)))


def _lengths(making: PoleTexts, proving: PoleTexts) -> Array:
    """Of the direction that lengths have among the making answers."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression())
    fitted.fit(text_lengths(making.answers), making.shows)
    return np.asarray(fitted.decision_function(text_lengths(proving.answers)))

"""Cosines between traits, block by block, with what resampled questions and chance make of them.

A vector of a few questions holds noise, and noise in a wide space is orthogonal to everything: a
resampled vector is as long as the true one and its noise twice over, and its cosine with anything
smaller. Resampled cosines are therefore taken with each vector's own length corrected by the
length that resampling adds, so that they scatter around the cosine itself; `ceiling` says what
cosine two such vectors of one and the same trait would have.

Source: percentile bootstrap over questions (Efron and Tibshirani 1993); attenuation by noise,
Spearman 1904.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta

from persona.traits.comparing.kept_trait import FEWEST_QUESTIONS, KeptTrait

N_RESAMPLES = 1000
N_SHUFFLED = 200
Array = NDArray[np.float64]
COLUMNS = ("first", "second", "layer", "own", "cosine", "low", "high", "ceiling", "chance", "n")


class Resampled:
    """A trait at one block as a weighted mean of its questions, or as it stands.

    rows: [question d_model], one row where the questions were not kept. weights: [draw question],
    of resampled questions. shuffled: [draw question], each question's sign turned for half of them.
    """

    def __init__(self, trait: KeptTrait, layer: int, n_draws: int, seed: int) -> None:
        self.vector = trait.at(layer).numpy()
        kept = trait.differences
        self.is_kept = kept is not None and len(kept.rows) >= FEWEST_QUESTIONS
        if kept is None or not self.is_kept:
            self.rows, self.n = self.vector[None], 0
            self.weights = self.shuffled = np.ones((n_draws, 1))
            return
        self.rows = kept.rows[:, layer].double().numpy()
        counts, self.n = kept.n_pairs.double().numpy(), len(kept.rows)
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(self.n, np.full(self.n, 1 / self.n), size=n_draws) * counts
        self.weights = drawn / drawn.sum(1, keepdims=True)
        self.shuffled = _half_turned(rng, N_SHUFFLED, self.n)

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.vector))

    def lengths(self) -> Array:
        """[draw]: of the resampled vectors, less what resampling adds to them on the average."""
        if not self.is_kept:
            return np.full(len(self.weights), self.norm)
        squares = np.square(self.weights @ self.rows).sum(1)
        corrected = squares - (squares.mean() - self.norm**2)
        with np.errstate(invalid="ignore"):
            return np.sqrt(np.where(corrected > 0, corrected, np.nan))

    def reliability(self, split_half: float = math.nan) -> float:
        """Share of the squared length that is no noise; of a split-half cosine, by Spearman-Brown.

        NaN where neither is known.
        """
        if self.is_kept:
            squares = np.square(self.weights @ self.rows).sum(1)
            return float(np.clip(1 - (squares.mean() - self.norm**2) / self.norm**2, 0, 1))
        return max(0.0, 2 * split_half / (1 + split_half)) if split_half > -1 else math.nan


def trait_cosines(
    traits: Sequence[KeptTrait],
    blocks: Sequence[int],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Every pair of traits at every block.

    Columns: first, second, layer; own: whose own block it is ("first", "second", "both" or "");
    cosine; low, high: 95 % over resampled questions of either, NaN where neither kept its questions
    (n counts those of the trait with fewer); ceiling: the cosine that two vectors of one trait
    would have, if they were as noisy as these, NaN where nothing says how noisy they are; chance:
    what 95 % of unrelated vectors stay within, to either side, the larger of random directions and,
    where questions were kept, of vectors of shuffled poles.
    """
    found = []
    for layer in blocks:
        at = {
            trait.name: Resampled(trait, layer, n_resamples, seed + place)
            for place, trait in enumerate(traits)
        }
        for first, second in combinations(traits, 2):
            found.append(_row(first, second, layer, at[first.name], at[second.name]))
    return pd.DataFrame(found, columns=list(COLUMNS))


def random_bound(d_model: int, level: float = 0.95) -> float:
    """|cosine| that a share `level` of isotropic random directions stays within.

    The squared cosine with a fixed vector is Beta(1/2, (d_model - 1) / 2).
    """
    return float(np.sqrt(beta.ppf(level, 0.5, (d_model - 1) / 2)))


def _row(
    first: KeptTrait, second: KeptTrait, layer: int, a: Resampled, b: Resampled
) -> dict[str, Any]:
    cosine = float(a.vector @ b.vector) / (a.norm * b.norm)
    low = high = math.nan
    if a.is_kept or b.is_kept:
        dots = np.einsum("rp,rp->r", a.weights @ (a.rows @ b.rows.T), b.weights)
        draws = dots / (a.lengths() * b.lengths())
        low, high = (float(end) for end in np.nanpercentile(draws, [2.5, 97.5]))
    own = {(True, True): "both", (True, False): "first", (False, True): "second"}
    # a split-half cosine is told of the own block alone
    halves = [t.split_half if t.layer == layer else math.nan for t in (first, second)]
    reliable = a.reliability(halves[0]) * b.reliability(halves[1])
    return {
        "first": first.name,
        "second": second.name,
        "layer": layer,
        "own": own.get((first.layer == layer, second.layer == layer), ""),
        "cosine": cosine,
        "low": max(low, -1.0) if math.isfinite(low) else math.nan,
        "high": min(high, 1.0) if math.isfinite(high) else math.nan,
        "ceiling": math.sqrt(reliable) if math.isfinite(reliable) else math.nan,
        "chance": max(
            random_bound(len(a.vector)), _shuffled_bound(a, b.vector), _shuffled_bound(b, a.vector)
        ),
        "n": min((r.n for r in (a, b) if r.is_kept), default=0),
    }


def _shuffled_bound(one: Resampled, other: Array) -> float:
    """What 95 % of the cosines of its shuffled vectors with another trait stay within."""
    if not one.is_kept:
        return 0.0
    return float(np.percentile(np.abs(shuffled_cosines(one, other)), 95))


def shuffled_cosines(one: Resampled, other: Array) -> Array:
    """[draw]: cosines of the vectors of shuffled poles with another vector."""
    made = one.shuffled @ one.rows
    lengths = np.linalg.norm(made, axis=1) * np.linalg.norm(other)
    return np.asarray(made @ other / np.where(lengths > 0, lengths, np.inf))


def _half_turned(rng: np.random.Generator, n: int, n_questions: int) -> Array:
    """[draw question]: weights, turned for exactly half of the questions.

    As `persona.traits.kept_answers.shuffled_poles`: what all questions share cancels, so that the
    true vector is not among them.
    """
    half = n_questions // 2
    order = rng.random((n, n_questions)).argsort(axis=1)
    signs = np.zeros((n, n_questions))
    np.put_along_axis(signs, order[:, :half], 1.0, axis=1)
    np.put_along_axis(signs, order[:, half : 2 * half], -1.0, axis=1)
    return signs / (2 * half)

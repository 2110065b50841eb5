"""Where the shift of a fine-tune lies among traits, and which of them it resembles beyond chance.

Each trait is asked at its own block: what is the cosine between what the fine-tune did to the
residual stream there and the trait's vector? Beside it stand random directions (the norm of a
vector leaves a cosine as it is, so they are matched in norm), vectors of the trait's own answers
with shuffled poles where its questions were kept, and vectors of nonsense traits at the same
block. The p value of the family compares with each draw's best trait, so that looking at seven
traits is paid for.

Source: Westfall and Young 1993 (max statistic); the projection of a fine-tuning shift on persona
vectors, Chen et al. 2025, section 5. differs: a cosine with its controls in place of a bare
projection, and answer tokens in place of the last one of the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import beta
from torch import Tensor

from persona.errors import DataError
from persona.intervals import beyond_draws
from persona.traits.comparing.kept_trait import FEWEST_QUESTIONS, KeptTrait
from persona.traits.comparing.trait_cosines import (
    N_RESAMPLES,
    Resampled,
    shuffled_cosines,
)

N_RANDOM = 1000
LEVEL = 0.05
Array = NDArray[np.float64]
COLUMNS = (
    *("trait", "layer", "projection", "cosine", "low", "high", "n", "share", "share_alone"),
    *("chance", "nonsense", "p", "p_family", "resembles"),
)


@dataclass(frozen=True, eq=False)
class Resemblance:
    """table: one row a trait, see `resemblance`. span: of all traits together, see `span_share`."""

    table: pd.DataFrame
    span: dict[str, Any]

    @property
    def resembled(self) -> list[str]:
        """Names of the traits that the shift resembles, the most alike first."""
        mine = self.table[self.table["resembles"]].sort_values("cosine", ascending=False)
        return list(mine["trait"])

    def as_json(self) -> dict[str, Any]:
        """Undefined numbers are null."""
        rows = [
            {key: None if value != value else value for key, value in row.items()}
            for row in self.table.to_dict("records")
        ]
        return {"traits": rows, "resembles": self.resembled, "span": self.span}


def resemblance(
    shift: Float[Tensor, "question layer d_model"],
    traits: Sequence[KeptTrait],
    *,
    nonsense: Sequence[KeptTrait] = (),
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Resemblance:
    """What a fine-tune did, trait by trait.

    shift: fine-tuned less aligned residual by question, at every block; a single row where it is
        known as a mean alone.
    Columns: trait, layer (its own); projection: of the shift on the trait's unit vector, in
    residual-stream units; cosine with low, high, 95 % over resampled questions of the shift and of
    the trait, NaN where neither is known (n counts those of the shift); share: of the shift's
    squared norm at that block, the cosine squared; share_alone: of that what no other of the traits
    holds, which is little where traits are alike; chance: what 95 % of the random directions, and
    of the vectors of shuffled poles, stay below; nonsense: the largest cosine of a nonsense trait
    there, NaN without one; p, p_family; resembles: p_family at most 0.05, an interval above 0, and
    more than every nonsense trait.
    Raises: DataError without traits, for another width, a block that the shift has not, or a shift
    of zero there.
    """
    if not traits:
        raise DataError("there is no trait to compare the shift with")
    rng = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    nulls = []
    for place, trait in enumerate(traits):
        rows = _rows_at(shift, trait)
        mean = rows.mean(0)
        length = float(np.linalg.norm(mean))
        if not length > 0:
            raise DataError(
                f"the two models do not differ at block {trait.layer}, the block of {trait.name}"
            )
        read = Resampled(trait, trait.layer, n_resamples, seed + place)
        cosine = float(mean @ read.vector) / (length * read.norm)
        low, high = _interval(rows, read, rng, n_resamples)
        others = [float(mean @ v) / length for v in _units(nonsense, trait.layer)]
        null = _null(mean, read, rng)
        nulls.append(null)
        lines.append(
            {
                "trait": trait.name,
                "layer": trait.layer,
                "projection": cosine * length,
                "cosine": cosine,
                "low": low,
                "high": high,
                "n": len(rows) if len(rows) > 1 else 0,
                "share": cosine**2,
                "share_alone": _share_alone(mean, trait, traits),
                "chance": max(float(np.percentile(part, 95)) for part in null),
                "nonsense": max(others, default=math.nan),
                "p": max(beyond_draws(cosine, part) for part in null),
            }
        )
    for line in lines:
        line["p_family"] = _family(line["cosine"], nulls)
        line["resembles"] = bool(
            line["p_family"] <= LEVEL
            and not line["low"] <= 0
            and not line["cosine"] <= line["nonsense"]
        )
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return Resemblance(table, span_share(shift, traits))


def span_share(
    shift: Float[Tensor, "question layer d_model"], traits: Sequence[KeptTrait]
) -> dict[str, Any]:
    """The share of the shift's squared norm that lies in the span of all traits, at one block.

    The block is the middle one of the traits' own at which all have a vector. Of k random
    directions in d_model dimensions the span holds k / d_model on the average, and the share is
    Beta(k / 2, (d_model - k) / 2); expected and p are of that.
    """
    layer = common_block(traits)
    mean = shift[:, layer].double().mean(0).numpy()
    rank = int(np.linalg.matrix_rank(np.stack(_units(traits, layer)), tol=1e-6))
    share = _share_within(mean, traits, layer)
    d_model = len(mean)
    null = beta(rank / 2, (d_model - rank) / 2) if rank < d_model else None
    return {
        "layer": layer,
        "rank": rank,
        "share": share,
        "expected": rank / d_model,
        "p": 1.0 if null is None else float(null.sf(share)),
    }


def _share_alone(mean: Array, trait: KeptTrait, traits: Sequence[KeptTrait]) -> float:
    """What the span of all traits at its block loses of the squared norm without this one.

    NaN where another has no vector there.
    """
    layer = trait.layer
    if any(layer not in other.vectors.vectors for other in traits):
        return math.nan
    others = [one for one in traits if one.name != trait.name]
    return _share_within(mean, traits, layer) - _share_within(mean, others, layer)


def _share_within(mean: Array, traits: Sequence[KeptTrait], layer: int) -> float:
    if not traits:
        return 0.0
    _, lengths, axes = np.linalg.svd(np.stack(_units(traits, layer)), full_matrices=False)
    within = axes[lengths > 1e-6] @ mean
    return float(within @ within / (mean @ mean))


def common_block(traits: Sequence[KeptTrait]) -> int:
    """The middle one of the traits' own blocks at which all of them have a vector.

    Raises: DataError where there is no such block.
    """
    shared = set.intersection(*(set(trait.vectors.layers) for trait in traits))
    if not shared:
        raise DataError("these traits have no block in common")
    own = sorted(trait.layer for trait in traits)
    middle = own[len(own) // 2]
    return min(sorted(shared), key=lambda layer: abs(layer - middle))


def _rows_at(shift: Tensor, trait: KeptTrait) -> Array:
    n_layers, d_model = shift.shape[1:]
    if d_model != trait.vectors.d_model or trait.layer >= n_layers:
        raise DataError(
            f"{trait.name} is at block {trait.layer} with d_model {trait.vectors.d_model}, but the "
            f"fine-tune has {n_layers} blocks and d_model {d_model}; it is of another model"
        )
    return np.asarray(shift[:, trait.layer].double().numpy())


def _units(traits: Sequence[KeptTrait], layer: int) -> list[Array]:
    vectors = [trait.at(layer).numpy() for trait in traits]
    return [vector / np.linalg.norm(vector) for vector in vectors]


def _interval(
    rows: Array, trait: Resampled, rng: np.random.Generator, n_resamples: int
) -> tuple[float, float]:
    """95 % of the cosine over questions of the shift and of the trait; see `trait_cosines`."""
    enough = len(rows) >= FEWEST_QUESTIONS
    if not enough and not trait.is_kept:
        return math.nan, math.nan
    n = len(rows)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=n_resamples) / n
    mean = rows.mean(0)
    lengths = np.full(n_resamples, np.linalg.norm(mean))
    if enough:
        squares = np.einsum("rq,rq->r", weights @ (rows @ rows.T), weights)
        corrected = squares - (squares.mean() - mean @ mean)
        lengths = np.sqrt(np.where(corrected > 0, corrected, np.nan))
    else:
        weights = np.full_like(weights, 1 / n)
    dots = np.einsum("rq,rq->r", weights @ (rows @ trait.rows.T), trait.weights)
    draws = np.clip(dots / (lengths * trait.lengths()), -1, 1)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return float(low), float(high)


def _null(mean: Array, trait: Resampled, rng: np.random.Generator) -> list[Array]:
    """Cosines of random directions, and of vectors of shuffled poles, with the shift."""
    drawn = rng.standard_normal((N_RANDOM, len(mean)))
    random = drawn @ mean / (np.linalg.norm(drawn, axis=1) * np.linalg.norm(mean))
    return [random, shuffled_cosines(trait, mean)] if trait.is_kept else [random]


def _family(cosine: float, nulls: Sequence[Sequence[Array]]) -> float:
    """p against each draw's best trait, by the harder of the two nulls."""
    found = []
    for kind in range(max(map(len, nulls))):
        draws = np.stack([of_trait[kind] for of_trait in nulls if len(of_trait) > kind])
        found.append(beyond_draws(cosine, draws.max(0)))
    return max(found)

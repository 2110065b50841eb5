"""Is a direction's separation more than chance would give? Four nulls, corrected for looking often.

The statistic is the AUROC of projections of held-out answers, positive above negative, folded at
0.5 for directions whose sign means nothing (random ones), so that an observed direction must beat
the better side of each. Nulls:

isotropic    unit Gaussian directions
covariance   Gaussian directions with the covariance of the answers, centred within each question:
             they lie where activations vary anyway
permutation  the direction itself, the two answers of each question swapped at random
others       directions of other traits, handed in

p is (1 + draws at least as good) / (1 + draws), the least that so many draws can give. p_family
compares with each draw's best layer, so that looking at every layer is paid for (Westfall and Young
1993). q is Benjamini and Hochberg's, over the candidates at their best layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.errors import DataError
from probes.separation import auroc_of_pairs

NULLS = ("isotropic", "covariance", "permutation", "others")
N_DRAWS = 1000


def null_table(
    contrast: Contrast,
    candidates: Mapping[str, Float[Tensor, "layer d_model"]],
    *,
    others: Mapping[str, Float[Tensor, "layer d_model"]] | None = None,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Every candidate against every null at every layer.

    contrast: answers to questions that made none of the candidates, one pair a question.
    others: directions of other traits, at least 2 for that null to be there.
    Columns: candidate, layer, null, auroc, null_p97_5, p, p_family, q, n_draws, n_questions.
    Raises: DataError for shapes that do not fit, fewer than 4 questions, or fewer than 20 draws.

    Examples:
        >>> from persona.directions import planted_contrast
        >>> from probes.nulls import null_table
        >>> contrast, truth = planted_contrast(30, 2, 16, signal=3.0, noise=1.0)
        >>> table = null_table(contrast, {"planted": truth[:, 0]}, n_draws=100)
        >>> {null: bool(p < 0.05) for null, p in table.groupby("null")["p_family"].max().items()}
        {'covariance': True, 'isotropic': True, 'permutation': True}
    """
    if n_draws < 20:
        raise DataError(f"a null needs at least 20 draws; got {n_draws}")
    shape = (contrast.n_layers, contrast.d_model)
    for name, vectors in {**candidates, **(others or {})}.items():
        if tuple(vectors.shape) != shape:
            raise DataError(
                f"direction {name!r} is {tuple(vectors.shape)}; the answers are read at "
                f"[layer d_model] = {shape}"
            )
    pairs = _paired(contrast)
    generator = torch.Generator().manual_seed(seed)
    shared = {
        "isotropic": _folded(_auroc(_random_projections(pairs, None, n_draws, generator))),
        "covariance": _folded(_auroc(_random_projections(pairs, "centred", n_draws, generator))),
    }
    if others and len(others) > 1:
        stacked = torch.stack(list(others.values()))
        shared["others"] = _folded(_auroc(_project(pairs, stacked)))
    tables = []
    for name, vectors in candidates.items():
        projections = _project(pairs, vectors[None])
        observed = _auroc(projections)[0]
        swapped = _auroc(_swapped(projections[0], n_draws, generator))
        for null, draws in {**shared, "permutation": swapped}.items():
            tables.append(_compare(name, null, observed, draws, len(pairs[0])))
    return _with_q(pd.concat(tables, ignore_index=True))


def _paired(contrast: Contrast) -> Float[Tensor, "side question layer d_model"]:
    contrast.pairs()  # raises unless every question has one row in each class
    sides = []
    for rows, ids in (
        (contrast.negative, contrast.negative_questions),
        (contrast.positive, contrast.positive_questions),
    ):
        sides.append(rows[sorted(range(len(ids)), key=lambda place, ids=ids: ids[place])])  # type: ignore[misc]
    pairs = torch.stack(sides)
    if pairs.shape[1] < 4:
        raise DataError(f"a null table needs at least 4 questions; got {pairs.shape[1]}")
    return pairs


def _project(
    pairs: Float[Tensor, "side question layer d_model"],
    directions: Float[Tensor, "draw layer d_model"],
) -> Float[Tensor, "draw layer side question"]:
    return einsum(
        pairs.float(), directions.float(), "side q layer d, draw layer d -> draw layer side q"
    )


def _random_projections(
    pairs: Float[Tensor, "side question layer d_model"],
    matched_to: str | None,
    n_draws: int,
    generator: torch.Generator,
) -> Float[Tensor, "draw layer side question"]:
    n_layers, d_model = pairs.shape[2:]
    if matched_to is None:
        directions = torch.randn(n_draws, n_layers, d_model, generator=generator)
    else:
        directions = covariance_matched(pairs, n_draws, generator)
    return _project(pairs, directions)


def covariance_matched(
    pairs: Float[Tensor, "side question layer d_model"], n_draws: int, generator: torch.Generator
) -> Float[Tensor, "draw layer d_model"]:
    """Random directions with the covariance of the answers, centred within each class.

    They are random mixtures of the answers, less their class means, and so have no part of the
    mean difference that candidates are made of.
    """
    centred = (pairs - pairs.mean(1, keepdim=True)).flatten(0, 1)
    mixing = torch.randn(n_draws, len(centred), generator=generator)
    return einsum(mixing, centred, "draw row, row layer d -> draw layer d")


def _swapped(
    projections: Float[Tensor, "layer side question"], n_draws: int, generator: torch.Generator
) -> Float[Tensor, "draw layer side question"]:
    n_questions = projections.shape[-1]
    swap = torch.rand(n_draws, 1, 1, n_questions, generator=generator) < 0.5
    return torch.where(swap, projections.flip(1)[None], projections[None])


def _auroc(projections: Float[Tensor, "draw layer side question"]) -> NDArray[np.float64]:
    """[draw layer]: probability that a positive answer projects higher, ties counting a half."""
    return auroc_of_pairs(projections.movedim(2, -1).numpy())


def _folded(auroc: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(auroc, 1 - auroc)


def _compare(
    candidate: str,
    null: str,
    observed: NDArray[np.float64],
    draws: NDArray[np.float64],
    n_questions: int,
) -> pd.DataFrame:
    n = len(draws)
    best = draws.max(1)
    return pd.DataFrame(
        {
            "candidate": candidate,
            "layer": range(len(observed)),
            "null": null,
            "auroc": observed,
            "null_p97_5": np.percentile(draws, 97.5, axis=0),
            "p": (1 + (draws >= observed).sum(0)) / (1 + n),
            "p_family": (1 + (best[:, None] >= observed).sum(0)) / (1 + n),
            "n_draws": n,
            "n_questions": n_questions,
        }
    )


def _with_q(table: pd.DataFrame) -> pd.DataFrame:
    """Benjamini-Hochberg over candidates, each by its smallest family-wise p, null by null."""
    best = table.groupby(["null", "candidate"])["p_family"].min()
    q = best.groupby(level="null", group_keys=False).transform(
        lambda p: false_discovery_control(p.to_numpy(), method="bh")
    )
    return table.merge(q.rename("q"), left_on=["null", "candidate"], right_index=True)

"""Is a direction a property of the trait, or of the questions it happened to be made from?

Every table has one row per layer (and per size, group or pair): cosine between directions made by
one method from different questions, with 95 % percentile intervals over the random draws. For
subspaces it is the root mean square cosine of the principal angles, ||A B^T|| / sqrt(rank); two
random subspaces give about sqrt(rank / d_model). Questions are drawn whole, never single answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.directions.methods import Method
from persona.errors import DataError

N_DRAWS = 20


def split_half_cosine(
    contrast: Contrast, method: Method, *, rank: int = 1, n_splits: int = N_DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Agreement between two random halves of the questions.

    Columns: layer, cosine (mean over splits), low, high, n (questions in a half).
    Raises: DataError below 4 questions, or as the method for a half.
    """
    questions = _questions(contrast, 4)
    half = len(questions) // 2
    draws = []
    for order in _orders(questions, n_splits, seed):
        first = method(select_questions(contrast, order[:half]), rank=rank)
        second = method(select_questions(contrast, order[half:]), rank=rank)
        draws.append(subspace_cosine(first, second))
    return _summary(draws, n=half)


def bootstrap_cosine(
    contrast: Contrast, method: Method, *, rank: int = 1, n_resamples: int = N_DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Agreement between the direction from all questions and from questions drawn with return.

    Columns as `split_half_cosine`. A question drawn twice counts twice.
    Raises: DataError below 4 questions.
    """
    questions = _questions(contrast, 4)
    whole = method(contrast, rank=rank)
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n_resamples):
        drawn = [questions[i] for i in rng.integers(0, len(questions), len(questions))]
        draws.append(subspace_cosine(whole, method(select_questions(contrast, drawn), rank=rank)))
    return _summary(draws, n=len(questions))


def sample_size_curve(
    contrast: Contrast,
    method: Method,
    sizes: Iterable[int] = (4, 8, 16, 32, 64, 128),
    *,
    rank: int = 1,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Agreement between two disjoint random sets of n questions, for each n: are there enough?

    Columns: layer, n, cosine, low, high. Sizes above half the questions are left out.
    Raises: DataError when no size is left.
    """
    questions = _questions(contrast, 4)
    kept = sorted({n for n in sizes if 2 <= n <= len(questions) // 2})
    if not kept:
        raise DataError(
            f"two disjoint sets need a size of 2 to {len(questions) // 2} questions; got "
            f"{sorted(sizes)}"
        )
    tables = []
    for n in kept:
        draws = [
            subspace_cosine(
                method(select_questions(contrast, order[:n]), rank=rank),
                method(select_questions(contrast, order[n : 2 * n]), rank=rank),
            )
            for order in _orders(questions, n_draws, seed)
        ]
        tables.append(_summary(draws, n=n))
    return pd.concat(tables, ignore_index=True)


def leave_one_group_out(
    contrast: Contrast, method: Method, groups: Mapping[str, str], *, rank: int = 1
) -> pd.DataFrame:
    """Agreement between the direction of one group's questions and that of all the others'.

    groups: question -> its domain (or any other subset).
    Columns: layer, group, cosine, n (questions of the group).
    Raises: DataError for a question without a group, fewer than 2 groups, or a group of fewer than
    2 questions.
    """
    questions = _questions(contrast, 4)
    without = [q for q in questions if q not in groups]
    if without:
        raise DataError(f"question {without[0]!r} has no group ({len(without)} such questions)")
    members: dict[str, list[str]] = {}
    for question in questions:
        members.setdefault(groups[question], []).append(question)
    small = [group for group, inside in members.items() if len(inside) < 2]
    if small or len(members) < 2:
        raise DataError(
            f"leaving one group out needs 2 or more groups of 2 or more questions; got "
            f"{ {group: len(inside) for group, inside in members.items()} }"
        )
    rows = []
    for group, inside in sorted(members.items()):
        others = [q for q in questions if groups[q] != group]
        cosines = subspace_cosine(
            method(select_questions(contrast, inside), rank=rank),
            method(select_questions(contrast, others), rank=rank),
        )
        rows += [
            {"layer": layer, "group": group, "cosine": float(c), "n": len(inside)}
            for layer, c in enumerate(cosines)
        ]
    return pd.DataFrame(rows)


def pairwise_cosine(directions: Mapping[str, Float[Tensor, "layer rank d_model"]]) -> pd.DataFrame:
    """Agreement of every two directions: seeds of a fine-tune, methods, or fine-tunes.

    Columns: layer, first, second, cosine.
    """
    rows = [
        {"layer": layer, "first": first, "second": second, "cosine": float(c)}
        for first, second in combinations(directions, 2)
        for layer, c in enumerate(subspace_cosine(directions[first], directions[second]))
    ]
    return pd.DataFrame(rows, columns=["layer", "first", "second", "cosine"])


def subspace_cosine(
    first: Float[Tensor, "layer rank d_model"], second: Float[Tensor, "layer rank d_model"]
) -> Float[Tensor, " layer"]:
    """||A B^T|| / sqrt(rank) of orthonormal rows, by layer; for rank 1 the signed cosine.

    Raises: DataError when the shapes differ.
    """
    if first.shape != second.shape:
        raise DataError(
            f"directions of one shape are compared; got {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    products = einsum(
        first.double(),
        second.double(),
        "layer row d_model, layer column d_model -> layer row column",
    )
    rank = first.shape[1]
    if rank == 1:
        return products[:, 0, 0]
    return torch.linalg.matrix_norm(products) / rank**0.5


def select_questions(contrast: Contrast, questions: Sequence[str]) -> Contrast:
    """The answers to some questions; one that is named twice comes twice, under a new id."""
    picked = {}
    for name in ("positive", "negative"):
        ids = getattr(contrast, f"{name}_questions")
        places: dict[str, list[int]] = {}
        for place, question in enumerate(ids):
            places.setdefault(question, []).append(place)
        rows, names = [], []
        for draw, question in enumerate(questions):
            rows += places.get(question, [])
            names += [f"{question}#{draw}"] * len(places.get(question, []))
        tokens = getattr(contrast, f"{name}_tokens")
        picked[name] = getattr(contrast, name)[rows]
        picked[f"{name}_questions"] = tuple(names)
        picked[f"{name}_tokens"] = None if tokens is None else tokens[rows]
    return replace(contrast, **picked)


def _questions(contrast: Contrast, at_least: int) -> list[str]:
    questions = sorted({*contrast.positive_questions, *contrast.negative_questions})
    if len(questions) < at_least:
        raise DataError(f"reliability needs at least {at_least} questions; got {len(questions)}")
    return questions


def _orders(questions: Sequence[str], n: int, seed: int) -> Iterable[list[str]]:
    rng = np.random.default_rng(seed)
    return ([questions[i] for i in rng.permutation(len(questions))] for _ in range(n))


def _summary(draws: Sequence[Tensor], n: int) -> pd.DataFrame:
    cosines = torch.stack(list(draws)).numpy()
    percentile = partial(np.percentile, cosines, axis=0)
    return pd.DataFrame(
        {
            "layer": range(cosines.shape[1]),
            "n": n,
            "cosine": cosines.mean(0),
            "low": percentile(2.5),
            "high": percentile(97.5),
        }
    )

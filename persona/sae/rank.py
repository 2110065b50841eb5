"""Which latents change: from the aligned model to its fine-tune, or from good to bad answers.

Every question gives one difference per latent, so that its texts and tokens are no sample of their
own. With d the differences of n questions:

change       mean d, in units of activation
effect_size  mean d / sd d (Cohen's d of paired differences)
p            permutation null: the two sides of each question swapped at random, |t| two-sided,
             (1 + draws at least as far) / (1 + draws)
p_family     the same against the largest |t| of any latent in a draw: looking at all is paid for
q            Benjamini-Hochberg over the latents, of the p of Student's t, which a permutation of
             1,000 draws could not resolve over thousands of latents

A latent that is silent everywhere has no p: NaN, and is not counted among those looked at.

Source: Wang et al. 2025 (persona features: rise of mean activation); Westfall and Young 1993
(maximum over the family). differs: questions are the unit, and both tests are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.pair import ModelPair, Side
from persona.sae.activity import Activity, Where, latent_activity
from persona.sae.autoencoder import SparseAutoencoder

ContrastName = Literal["model", "answer"]
Answers = Literal["both", "good", "bad"]
N_PERMUTATIONS = 1000
MIN_QUESTIONS = 4
_DRAWS_AT_ONCE = 100


@dataclass(frozen=True)
class ByQuestion:
    """Activity of both sides, question by question; `before` is aligned (or good answers)."""

    before: Activity
    after: Activity


def rank_latents(
    pair: ModelPair,
    sae: SparseAutoencoder,
    questions: Sequence[AnswerPair],
    *,
    contrast: ContrastName = "model",
    answers: Answers = "both",
    where: Where = "response",
    n_permutations: int = N_PERMUTATIONS,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """One row per latent, the largest rise first; see the module for the columns.

    contrast: "model": fine-tuned minus aligned on the same texts. "answer": bad minus good answers
        in the fine-tuned model.
    answers: for "model", which answers the two models read.
    where: token set, or the tokens of each text, in the order good, bad of each question (or the
        one of them that is read).
    Columns: latent, change, before, after, frequency_before, frequency_after, frequency_change,
    effect_size, t, p, p_family, q, n_questions.
    Raises: DataError for fewer than 4 questions or 20 permutations; as `latent_activity`.
    """
    n_questions = len({question.id for question in questions})
    if n_questions < MIN_QUESTIONS:
        raise DataError(f"ranking needs at least {MIN_QUESTIONS} questions; got {n_questions}")
    found = _activity(pair, sae, questions, contrast, answers, where, token_budget)
    return change_table(found, n_permutations=n_permutations, seed=seed)


def _activity(
    pair: ModelPair,
    sae: SparseAutoencoder,
    questions: Sequence[AnswerPair],
    contrast: ContrastName,
    answers: Answers,
    where: Where,
    token_budget: int,
) -> ByQuestion:
    both = contrast == "answer" or answers == "both"
    texts: list[tuple[str, TokenizedDialogue]] = []
    for name in ("good", "bad"):
        if both or answers == name:
            encoded = pair.chat.encode_all([getattr(q, f"{name}_dialogue") for q in questions])
            texts += [(name, dialogue) for dialogue in encoded]
    if both:  # good and bad of a question beside each other
        texts = [
            t
            for pair_ in zip(texts[: len(questions)], texts[len(questions) :], strict=True)
            for t in pair_
        ]
    ids = [dialogue.id for _, dialogue in texts]

    def read(side: Side) -> Activity:
        with pair.active(side) as bridge:
            return latent_activity(
                bridge,
                sae,
                [dialogue for _, dialogue in texts],
                where,
                token_budget=token_budget,
                description=f"Reading latents ({side})",
            )

    if contrast == "model":
        return ByQuestion(_grouped(read("aligned"), ids), _grouped(read("finetuned"), ids))
    found = read("finetuned")
    good = [i for i, (name, _) in enumerate(texts) if name == "good"]
    bad = [i for i, (name, _) in enumerate(texts) if name == "bad"]
    return ByQuestion(*(_grouped(_rows(found, at), [ids[i] for i in at]) for at in (good, bad)))


def _rows(activity: Activity, at: Sequence[int]) -> Activity:
    return Activity(activity.mean[list(at)], activity.frequency[list(at)])


def _grouped(activity: Activity, ids: Sequence[str]) -> Activity:
    """One row per question: the mean over its texts."""
    order = {name: place for place, name in enumerate(dict.fromkeys(ids))}
    at = torch.tensor([order[name] for name in ids])
    counts = torch.bincount(at).float()[:, None]

    def mean(rows: Tensor) -> Tensor:
        return torch.zeros(len(order), rows.shape[1]).index_add_(0, at, rows) / counts

    return Activity(mean(activity.mean), mean(activity.frequency))


def change_table(
    found: ByQuestion, *, n_permutations: int = N_PERMUTATIONS, seed: int = 0
) -> pd.DataFrame:
    """The table of `rank_latents` from activity that has been read."""
    from scipy.stats import t as student

    if n_permutations < 20:
        raise DataError(f"a null needs at least 20 permutations; got {n_permutations}")
    difference = (found.after.mean - found.before.mean).double()
    n = len(difference)
    change, spread = difference.mean(0), difference.std(0)
    observed = t_statistic(change, difference.square().sum(0), n)
    silent = ~((found.before.frequency > 0).any(0) | (found.after.frequency > 0).any(0)).numpy()
    p, p_family = _permuted(difference, observed.abs(), n_permutations, seed)
    by_t = 2 * student.sf(observed.abs().numpy(), n - 1)
    table = pd.DataFrame(
        {
            "latent": np.arange(difference.shape[1]),
            "change": change.numpy(),
            "before": found.before.mean.mean(0).double().numpy(),
            "after": found.after.mean.mean(0).double().numpy(),
            "frequency_before": found.before.frequency.mean(0).double().numpy(),
            "frequency_after": found.after.frequency.mean(0).double().numpy(),
            "effect_size": (change / spread).numpy(),
            "t": observed.numpy(),
            "p": p,
            "p_family": p_family,
            "q": _benjamini_hochberg(np.where(silent, np.nan, by_t)),
            "n_questions": n,
        }
    )
    table.insert(6, "frequency_change", table["frequency_after"] - table["frequency_before"])
    table.loc[silent, ["effect_size", "t", "p", "p_family", "q"]] = np.nan
    return table.sort_values(["change", "latent"], ascending=[False, True], ignore_index=True)


def t_statistic(
    mean: Float[Tensor, "*draw latent"], squares: Float[Tensor, " latent"], n: int
) -> Float[Tensor, "*draw latent"]:
    """Student's t of paired differences from their mean and sum of squares; 0 where all are 0."""
    variance = ((squares - n * mean.square()) / (n - 1)).clamp(min=0)
    # Where every question changes alike the variance is rounding: t is large, and stays finite.
    floor = 1e-12 * squares / n
    return mean / ((variance + floor) / n).sqrt().clamp(min=1e-30)


def _permuted(
    difference: Float[Tensor, "question latent"], observed: Tensor, n_draws: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """p by latent, and against the largest |t| of any latent; swapping sides flips the sign."""
    generator = torch.Generator().manual_seed(seed)
    n = len(difference)
    squares = difference.square().sum(0)
    beyond = torch.zeros_like(observed)
    beyond_family = torch.zeros_like(observed)
    for start in range(0, n_draws, _DRAWS_AT_ONCE):
        size = min(_DRAWS_AT_ONCE, n_draws - start)
        signs = torch.randint(0, 2, (size, n), generator=generator).to(difference) * 2 - 1
        drawn = t_statistic(signs @ difference / n, squares, n).abs()
        tolerant = observed * (1 - 1e-9)  # the same differences summed in another order
        beyond += (drawn >= tolerant).sum(0)
        beyond_family += (drawn.amax(1, keepdim=True) >= tolerant).sum(0)
    p, family = ((1 + counts) / (1 + n_draws) for counts in (beyond, beyond_family))
    return p.numpy(), family.numpy()


def _benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """q of every p that is a number; NaN stays."""
    from scipy.stats import false_discovery_control

    q = np.full_like(p, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q

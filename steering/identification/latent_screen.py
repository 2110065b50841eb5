"""Which latents cause the persona: a first-order screen of all, then real edits of the best.

With a the activation of a latent on a token, w its decoder row and g = dJ/dh there, J the gap,

    cure_predicted   = -sum over tokens of a (g . w)      take the latent away, in the fine-tune
    induce_predicted =  s sum over tokens of (g . w/|w|)  add a step of length s, in the aligned

per question; both keep the error of the autoencoder. The null of a real edit takes the very same
steps, token by token, along the decoder rows of other latents that fire (norm-matched).
Damage is the rise of cross-entropy on neutral text over the same model unedited.

Source: Marks et al. 2024 (attribution patching of latents); Wang et al. 2025 (latents that both
induce and cure). differs: the null, and damage shown beside each effect.

Shapes: N tokens of a batch, F latents, D d_model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED, Condition
from persona.data.types import AnswerPair, NeutralText
from persona.directions.direction import orthonormal
from persona.errors import DataError
from persona.models.pair import ModelPair, Side
from persona.sae import SparseAutoencoder
from steering.edits.edit import Edit
from steering.edits.interventions import Intervention
from steering.edits.steer import edited
from steering.identification.attribution import gradients

STEP_SHARE = 0.1
N_EXACT = 10
N_RANDOM = 20
CANDIDATE = "sae_latents"
ABLATED, ADDED = "latent ablated", "latent added"
EDITED_SIDE: dict[str, Side] = {ABLATED: "finetuned", ADDED: "aligned"}


@dataclass(frozen=True)
class FirstOrder:
    """Effects on the gap per question, in nats per token, of every latent in one model.

    ablated: of taking the latent away. added: of a step of length 1 along its unit decoder row at
    every token. mean: mean activation. fires: whether it is ever active. norm: mean length of the
    residual.
    """

    ablated: Float[Tensor, " latent"]
    added: Float[Tensor, " latent"]
    mean: Float[Tensor, " latent"]
    fires: Tensor
    norm: float


def first_order_latents(
    pair: ModelPair,
    sae: SparseAutoencoder,
    questions: Sequence[AnswerPair],
    side: Side = "finetuned",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> FirstOrder:
    """One forward and backward pass over the answers; memory does not grow with their number.

    Raises: DataError without questions; SpaceMismatchError for an autoencoder of another model.
    """
    if not questions:
        raise DataError("screening latents needs at least one question")
    pair.space(sae.layer).require_same(sae.space)
    decoder = sae.decoder
    lengths = decoder.norm(dim=1)
    ablated, added, total = (torch.zeros(sae.n_latents, dtype=torch.float64) for _ in range(3))
    fires = torch.zeros(sae.n_latents, dtype=torch.bool)
    n_tokens, norm = 0, 0.0
    for part in gradients(pair, questions, [sae.layer], "gap", token_budget, side):
        resid_ND = part.resid[sae.layer][part.writable].float()
        slope_NF = part.grad[sae.layer][part.writable].float() @ decoder.T
        with torch.no_grad():
            latents_NF = sae.encode(resid_ND)
        ablated -= (latents_NF * slope_NF).sum(0).double().cpu()
        added += slope_NF.sum(0).double().cpu()
        total += latents_NF.sum(0).double().cpu()
        fires |= (latents_NF != 0).any(0).cpu()
        n_tokens += len(resid_ND)
        norm += float(resid_ND.norm(dim=1).sum())
    n = len(questions)
    return FirstOrder(
        (ablated / n).float(),
        (added / n / lengths.double().cpu().clamp(min=1e-12)).float(),
        (total / n_tokens).float(),
        fires,
        norm / n_tokens,
    )


def screen_table(
    pair: ModelPair,
    sae: SparseAutoencoder,
    questions: Sequence[AnswerPair],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """Predicted cure and induction of every latent, the best cure first.

    Columns: latent, cure_predicted (below 0 is toward aligned), induce_predicted (above 0 is toward
    bad, of a step of a tenth of the residual's length), induce_p (share of latents that fire and
    induce at least as much), mean_aligned, mean_finetuned, step.
    """
    tuned = first_order_latents(pair, sae, questions, "finetuned", token_budget)
    aligned = first_order_latents(pair, sae, questions, "aligned", token_budget)
    step = STEP_SHARE * aligned.norm
    induced = (step * aligned.added).double().numpy()
    live = (tuned.fires | aligned.fires).numpy()
    null = np.sort(induced[live])
    at_least = len(null) - np.searchsorted(null, induced, side="left")
    table = pd.DataFrame(
        {
            "latent": np.arange(sae.n_latents),
            "cure_predicted": tuned.ablated.double().numpy(),
            "induce_predicted": induced,
            "induce_p": (1 + at_least) / (1 + len(null)),
            "mean_aligned": aligned.mean.double().numpy(),
            "mean_finetuned": tuned.mean.double().numpy(),
            "step": step,
        }
    )
    table.loc[~live, ["cure_predicted", "induce_predicted", "induce_p"]] = np.nan
    return table.sort_values(["cure_predicted", "latent"], ignore_index=True)


def promising(table: pd.DataFrame, n: int = N_EXACT) -> list[int]:
    """The latents predicted to cure and to induce, the best cure first; at most `n`."""
    chosen = table[(table["cure_predicted"] < 0) & (table["induce_predicted"] > 0)]
    return [int(latent) for latent in chosen["latent"][:n]]


def verify_latents(
    pair: ModelPair,
    sae: SparseAutoencoder,
    table: pd.DataFrame,
    latents: Sequence[int],
    questions: Sequence[AnswerPair],
    neutral: Sequence[NeutralText],
    *,
    n_random: int = N_RANDOM,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """Each latent taken away in the fine-tune and added in the aligned model, for real.

    table: of `screen_table`. The null takes each latent's own steps along the decoder rows of
    `n_random` other latents that fire: one set of rows, all latents.
    Columns: latent, cure_predicted, cure_measured, cure_p, induce_predicted, induce_measured,
    induce_p, damage_cure_nats, damage_induce_nats, kept. p is (1 + random rows that do at least as
    much) / (1 + their number); kept: cures and induces, each with the least p there can be.
    Raises: DataError for a latent out of range, or fewer than two others that fire.
    """
    sae.require_latents(latents)
    by_latent = table.set_index("latent")
    others = by_latent.index[by_latent["induce_predicted"].notna()].difference(list(latents))
    if len(others) < 2:
        raise DataError("no other latent fires on these questions: there is nothing to compare to")
    drawn = np.random.default_rng(seed).permutation(others)[:n_random].tolist()
    step = float(by_latent["step"].iloc[0])
    conditions = [
        *UNEDITED,
        *(_ablating(sae, latent, along) for latent in latents for along in (latent, *drawn)),
        *(_adding(sae, along, step) for along in (*latents, *drawn)),
    ]
    rows = score_pairs(
        pair,
        questions,
        conditions,
        kl=False,
        token_budget=token_budget,
        description="Editing latents",
    )
    gaps = _changes(rows, "gap")
    own = [c for c in conditions if c.facts.get("latent") == c.facts.get("along")]
    damage = _changes(
        score_neutral(pair, neutral, own, token_budget=token_budget), "neutral_ce_nats"
    )
    found = []
    for latent in latents:
        cure, induce = gaps[ABLATED, latent, latent], gaps[ADDED, latent, latent]
        cures = [gaps[ABLATED, latent, other] for other in drawn]
        induces = [gaps[ADDED, other, other] for other in drawn]
        least = 1 / (1 + len(drawn))
        cure_p = least * (1 + sum(other <= cure for other in cures))
        induce_p = least * (1 + sum(other >= induce for other in induces))
        found.append(
            {
                "latent": latent,
                "cure_predicted": by_latent.loc[latent, "cure_predicted"],
                "cure_measured": cure,
                "cure_p": cure_p,
                "induce_predicted": by_latent.loc[latent, "induce_predicted"],
                "induce_measured": induce,
                "induce_p": induce_p,
                "damage_cure_nats": damage[ABLATED, latent, latent],
                "damage_induce_nats": damage[ADDED, latent, latent],
                "kept": bool(cure < 0 < induce and max(cure_p, induce_p) <= least * (1 + 1e-9)),
            }
        )
    return pd.DataFrame(found)


def latent_rows(
    pair: ModelPair,
    sae: SparseAutoencoder,
    questions: Sequence[AnswerPair],
    n: int = N_EXACT,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Mapping[str, Float[Tensor, "rank d_model"]]:
    """The most promising latents as a candidate of `identify`: name -> orthonormal rows.

    The best cure comes first, so that rank 1 is the best latent; rows that depend on those before
    them are left out. Empty where no latent is predicted both to cure and to induce.
    """
    rows: list[Tensor] = []
    for latent in promising(screen_table(pair, sae, questions, token_budget), n):
        with contextlib.suppress(DataError):  # depends on the rows before it
            rows = list(orthonormal(torch.stack([*rows, sae.direction(latent).vector])))
    return {CANDIDATE: torch.stack(rows)} if rows else {}


def _ablating(sae: SparseAutoencoder, latent: int, along: int) -> Condition:
    """Take the latent's steps away along its own decoder row, or as long ones along another's."""
    length = sae.decoder[latent].norm()
    row = sae.decoder[along] / sae.decoder[along].norm() * length

    def apply(resid: Tensor) -> Tensor:
        return resid - (sae.encode(resid)[..., latent, None] * row).to(resid)

    facts = {"latent": latent, "along": along}
    return edited(ABLATED, EDITED_SIDE[ABLATED], [_edit(sae, apply, ABLATED)], facts=facts)


def _adding(sae: SparseAutoencoder, latent: int, step: float) -> Condition:
    """A step along the latent's own decoder row, at every token."""
    row = sae.decoder[latent] / sae.decoder[latent].norm()

    def apply(resid: Tensor) -> Tensor:
        return resid + (step * row).to(resid)

    facts = {"latent": latent, "along": latent}
    return edited(ADDED, EDITED_SIDE[ADDED], [_edit(sae, apply, ADDED)], facts=facts)


def _edit(sae: SparseAutoencoder, apply: Intervention, label: str) -> Edit:
    return Edit(sae.space.hook_name, sae.layer, sae.space.d_model, apply, label, space=sae.space)


def _changes(rows: pd.DataFrame, measure: str) -> dict[tuple[str, int, int], float]:
    """(condition, latent, along) -> mean of a measure less that of the same model unedited."""
    rows = rows[rows["measure"] == measure]
    plain = rows[rows["latent"].isna()].groupby("condition")["value"].mean()
    edits = rows.dropna(subset="latent").groupby(["condition", "latent", "along"])["value"].mean()
    return {
        (name, int(latent), int(along)): float(value - plain[EDITED_SIDE[name]])
        for (name, latent, along), value in edits.items()
    }

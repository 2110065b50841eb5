"""How well an autoencoder covers each model on each kind of text; looked at before anything else.

explained variance = 1 - sum |h - decode(encode(h))|^2 / sum |h - mean h|^2 over the tokens read
cross-entropy recovered = (CE zeroed - CE spliced) / (CE zeroed - CE untouched)

where spliced puts the reconstruction in place of the residual (no error kept) and zeroed puts 0,
at every token but the first. 1 is a perfect reconstruction.

Source: Bricken et al. 2023 (loss recovered); Gao et al. 2024. differs: by model and kind of text.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.activations.passes import Read, Reduce, passes
from persona.behaviour.scoring import Condition, score_dialogues
from persona.errors import DataError
from persona.models.hooks import hooked
from persona.models.pair import SIDES, ModelPair, Side
from persona.sae.autoencoder import SparseAutoencoder
from persona.sae.splice import spliced
from persona.sae.texts import Text

MAX_LOSS_OF_COVER = 0.05
LOW_VARIANCE = 0.5
ALL = "all"


@dataclass(frozen=True)
class Fidelity:
    """How well an autoencoder covers two models.

    table: one row per side x kind (and kind "all"): n_tokens, explained_variance, l0,
        ce_nats, ce_spliced_nats, ce_zeroed_nats, ce_recovered.
    warnings: one sentence for every kind of text where the fine-tune is not covered.
    """

    table: pd.DataFrame
    warnings: tuple[str, ...]

    def value(self, side: str, measure: str, kind: str = ALL) -> float:
        rows = self.table[(self.table["side"] == side) & (self.table["kind"] == kind)]
        if rows.empty:
            raise DataError(f"fidelity was not measured on {kind!r} text of the {side} model")
        return float(rows[measure].iloc[0])


@dataclass(frozen=True)
class _Sums:
    """Sums over tokens."""

    n: int = 0
    error: float = 0.0
    square: float = 0.0
    active: float = 0.0
    total: Tensor | float = 0.0

    @classmethod
    def of(cls, resid: Tensor, sae: SparseAutoencoder) -> _Sums:
        latents = sae.encode(resid)
        return cls(
            len(resid),
            float((resid - sae.decode(latents)).double().square().sum()),
            float(resid.double().square().sum()),
            float((latents != 0).sum()),
            resid.double().sum(0),
        )

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.n + other.n,
            self.error + other.error,
            self.square + other.square,
            self.active + other.active,
            self.total + other.total,
        )

    @property
    def explained_variance(self) -> float:
        variance = self.square - float(torch.as_tensor(self.total).square().sum()) / self.n
        return 1 - self.error / variance if variance > 0 else float("nan")


def measure_fidelity(
    pair: ModelPair,
    sae: SparseAutoencoder,
    texts: Sequence[Text],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Fidelity:
    """Reconstruction and cross-entropy of both models, by kind of text.

    Raises: DataError without texts; SpaceMismatchError for an autoencoder of another model.
    """
    if not texts:
        raise DataError("there is no text to measure fidelity on")
    pair.space(sae.layer).require_same(sae.space)
    entropy = _cross_entropies(pair, sae, texts, token_budget)
    kinds = np.array([text.kind for text in texts])
    weights = np.array([text.tokens.response[1] - text.tokens.response[0] for text in texts])
    rows = []
    for side in SIDES:
        sums = _reconstruction(pair, side, sae, texts, token_budget)
        sums[ALL] = sum(sums.values(), _Sums())
        for kind, found in sums.items():
            chosen = np.ones(len(texts), bool) if kind == ALL else kinds == kind
            clean, rebuilt, zeroed = (
                float(np.average(entropy[side, name][chosen], weights=weights[chosen]))
                for name in ("clean", "spliced", "zeroed")
            )
            rows.append(
                {
                    "side": side,
                    "kind": kind,
                    "n_tokens": found.n,
                    "explained_variance": found.explained_variance,
                    "l0": found.active / found.n,
                    "ce_nats": clean,
                    "ce_spliced_nats": rebuilt,
                    "ce_zeroed_nats": zeroed,
                    "ce_recovered": (zeroed - rebuilt) / (zeroed - clean)
                    if zeroed > clean
                    else float("nan"),
                }
            )
    table = pd.DataFrame(rows)
    return Fidelity(table, cover_warnings(table))


def cover_warnings(table: pd.DataFrame) -> tuple[str, ...]:
    """What a reader must know before believing latents of the fine-tuned model."""
    found = []
    by_side = table.set_index(["kind", "side"])
    for kind in dict.fromkeys(table["kind"]):
        for measure, what in (
            ("explained_variance", "variance explained"),
            ("ce_recovered", "cross-entropy recovered"),
        ):
            aligned, tuned = (float(by_side.loc[(kind, side), measure]) for side in SIDES)
            if aligned - tuned > MAX_LOSS_OF_COVER:
                found.append(
                    f"the autoencoder does not cover the fine-tune on {kind} text: {what} "
                    f"{tuned:.2f}, against {aligned:.2f} in the aligned model; train it on both"
                )
        variance = float(by_side.loc[(kind, "finetuned"), "explained_variance"])
        if variance < LOW_VARIANCE:
            found.append(
                f"the autoencoder explains {variance:.2f} of the variance of the fine-tuned model "
                f"on {kind} text; most of what it computes there is not in the latents"
            )
    return tuple(found)


@torch.no_grad()
def _reconstruction(
    pair: ModelPair, side: Side, sae: SparseAutoencoder, texts: Sequence[Text], token_budget: int
) -> dict[str, _Sums]:
    def reducer(read: Read) -> Reduce:
        return lambda resid_BPD: [
            _Sums.of(part, sae) for part in read.tokens(resid_BPD).split(read.counts)
        ]

    sums: dict[str, _Sums] = {text.kind: _Sums() for text in texts}
    dialogues, places = [text.tokens for text in texts], [range(*text.span) for text in texts]
    with pair.active(side) as model:
        for one in passes(
            model,
            dialogues,
            [sae.layer],
            places,
            reducer,
            token_budget=token_budget,
            description=f"Measuring fidelity ({side})",
        ):
            for i, part in zip(one.batch.indices, one.kept[0], strict=True):
                sums[texts[i].kind] += part
    return sums


def _cross_entropies(
    pair: ModelPair, sae: SparseAutoencoder, texts: Sequence[Text], token_budget: int
) -> dict[tuple[str, str], Any]:
    """(side, condition) -> mean cross-entropy of the response tokens of each text, nats."""

    def splice(bridge: Any) -> contextlib.AbstractContextManager[None]:
        return spliced(bridge, sae, keep_error=False)

    def zero(bridge: Any) -> contextlib.AbstractContextManager[None]:
        return _zeroed(bridge, sae.space.hook_name)

    names = [(side, name) for side in SIDES for name in ("clean", "spliced", "zeroed")]
    interventions = {"clean": None, "spliced": splice, "zeroed": zero}
    conditions = [
        Condition(f"{side} {name}", side, interventions[name], sae.layer) for side, name in names
    ]
    readings = score_dialogues(
        pair,
        [text.tokens for text in texts],
        conditions,
        token_budget=token_budget,
        description="Scoring the reconstruction",
    )
    return {name: -reading.log_prob for name, reading in zip(names, readings, strict=True)}


@contextlib.contextmanager
def _zeroed(bridge: Any, hook_name: str) -> Iterator[None]:
    def hook(resid: Tensor) -> Tensor:
        out = torch.zeros_like(resid)
        out[:, 0] = resid[:, 0]
        return out

    with hooked(bridge, [(hook_name, hook)]):
        yield


def fidelity_card(found: Fidelity) -> dict[str, Any]:
    """Fidelity as JSON: the rows, the numbers of each model over all text, the warnings."""
    table = json.loads(found.table.to_json(orient="records", double_precision=6))
    summary = {
        side: {
            measure: round(found.value(side, measure), 6)
            for measure in ("explained_variance", "l0", "ce_nats", "ce_spliced_nats")
        }
        for side in ("aligned", "finetuned")
    }
    recovered = {row["side"]: row["ce_recovered"] for row in table if row["kind"] == "all"}
    for side, values in summary.items():
        values["ce_recovered"] = recovered[side]
    return {**summary, "held_out": table, "warnings": list(found.warnings)}

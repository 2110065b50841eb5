"""What is kept of the residual stream of texts: means, single tokens, moments, covariances.

`model` is whatever `persona.activations.passes` reads: a bridge, a plain Hugging Face causal LM, a
PeftModel, a side of a pair. Token sets are those of `token_span`.

Shapes: B batch, P position, S token sets, L layers asked for, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch
from persona.activations.moments import Moments
from persona.activations.passes import Read, Reduce, every_token, means_over, passes
from persona.activations.positions import token_span
from persona.errors import DataError, ModelError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import is_hooked, model_width, n_layers
from persona.models.readers import Reader, reader_of
from persona.models.samplers import Side

AT_ONCE = 512
"""Texts that an engine is asked for together, where their moments are all that is kept."""


def collect_rows(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading activations",
) -> Float[Tensor, "dialogue layer d_model"]:
    """Mean activation of each dialogue's tokens at the output of each block, float32 on the CPU.

    Every dialogue weighs one, whatever its length. Rows follow the order of `dialogues`, layers
    the order of `layers`. Where an engine reads for the side of a pair that is open
    (`ModelPair.reader`), it is asked.
    Raises: DataError for no dialogues or activations that are not finite; ModelError for a layer
    out of range.
    """
    options: dict[str, Any] = {"token_budget": token_budget, "description": description}
    return collect_sets(model, dialogues, [token_set], layers, **options)[:, 0]


def collect_sets(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    token_sets: Sequence[str],
    layers: Sequence[int],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading activations",
) -> Float[Tensor, "dialogue set layer d_model"]:
    """What `collect_rows` gives for each of `token_sets`, at the cost of one of them.

    Raises: as `collect_rows`.
    """
    if (bound := reader_of(model)) is not None:
        return _by_reader(model, *bound, dialogues, token_sets, layers, description)
    rows = torch.empty(len(dialogues), len(token_sets), len(layers), model_width(model))
    for batch, means_BSLD in _means(
        model, dialogues, token_sets, layers, token_budget, description
    ):
        rows[list(batch.indices)] = means_BSLD
    return rows


def collect_moments(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading activations",
) -> Moments:
    """The same pooled activations as `collect_rows`, kept as mergeable float64 sums only."""
    moments = Moments.none(len(layers), model_width(model))
    if (bound := reader_of(model)) is not None:
        for start in range(0, max(len(dialogues), 1), AT_ONCE):  # none is refused there
            part = dialogues[start : start + AT_ONCE]
            read = _by_reader(model, *bound, part, [token_set], layers, description)
            moments = moments + Moments.of(read[:, 0])
        return moments
    for _, means_BSLD in _means(model, dialogues, [token_set], layers, token_budget, description):
        moments = moments + Moments.of(means_BSLD[:, 0])
    return moments


def collect_tokens(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading tokens",
) -> list[Float[Tensor, "tokens layer d_model"]]:
    """Residual of each token of the set at the output of each block, float32 on the CPU.

    One tensor a dialogue, in their order; 4 bytes a token, layer and coordinate are kept.
    Raises: as `collect_rows`.
    """
    places = [range(*token_span(dialogue, token_set)) for dialogue in dialogues]
    return _tokens(model, dialogues, places, layers, token_budget, description)


def collect_at(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int] | None = None,
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading tokens",
) -> Float[Tensor, "dialogue position layer d_model"]:
    """Residual at the output of each block at so many positions of each dialogue, float32.

    positions: for each dialogue as many token indices, counted from 0. layers: default all.
    Raises: DataError for no dialogues, a position outside its dialogue, unequal numbers of
    positions, or activations that are not finite; ModelError for a layer out of range.
    """
    wanted = list(range(n_layers(model))) if layers is None else list(layers)
    if not dialogues:
        raise DataError("there are no texts to read activations from")
    counts = {len(places) for places in positions}
    if len(positions) != len(dialogues) or len(counts) != 1 or counts == {0}:
        raise DataError(
            f"each text needs the same number of positions, at least one; got {len(positions)} "
            f"lists of length {sorted(counts)} for {len(dialogues)} texts"
        )
    for dialogue, places in zip(dialogues, positions, strict=True):
        if min(places) < 0 or max(places) >= len(dialogue):
            raise DataError(
                f"text {dialogue.id!r} has {len(dialogue)} tokens; positions {list(places)} are "
                "not all in it"
            )
    return torch.stack(_tokens(model, dialogues, positions, wanted, token_budget, description))


def collect_covariance(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading covariances",
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """layer -> covariance of the residual over tokens, float64; every token weighs one.

    Memory is one matrix a layer, whatever the number of texts.
    Raises: as `collect_rows`.
    """
    places = [range(*token_span(dialogue, token_set)) for dialogue in dialogues]
    found: dict[int, _Scatter] = {}
    options: dict[str, Any] = {"token_budget": token_budget, "description": description}
    for one in passes(model, dialogues, layers, places, _scatter, **options):
        for layer, part in zip(layers, one.kept, strict=True):
            found[layer] = found[layer] + part if layer in found else part
    return {layer: scatter.about_DD / scatter.count for layer, scatter in found.items()}


@dataclass(frozen=True)
class _Scatter:
    """Count, mean and products about the mean, of tokens; of two sets of tokens they add up.

    Products about 0 would lose, in float32, the variance of a coordinate whose mean is far from 0.
    Source: Chan, Golub, LeVeque 1983, as `Moments`.
    """

    count: int
    mean_D: Float[Tensor, " d_model"]
    about_DD: Float[Tensor, "d_model d_model"]

    def __add__(self, other: _Scatter) -> _Scatter:
        count = self.count + other.count
        step_D, share = other.mean_D - self.mean_D, other.count / count
        between_DD = self.count * share * torch.outer(step_D, step_D)
        about_DD = self.about_DD + other.about_DD + between_DD
        return _Scatter(count, self.mean_D + share * step_D, about_DD)


def _scatter(read: Read) -> Reduce:
    def reduce(resid_BPD: Tensor) -> _Scatter:
        tokens_TD = read.tokens(resid_BPD)
        mean_D = tokens_TD.mean(0)
        away_TD = tokens_TD - mean_D
        return _Scatter(len(away_TD), mean_D.double().cpu(), (away_TD.T @ away_TD).double().cpu())

    return reduce


def _by_reader(
    model: Any,
    reader: Reader,
    side: Side,
    dialogues: Sequence[TokenizedDialogue],
    token_sets: Sequence[str],
    layers: Sequence[int],
    description: str,
) -> Float[Tensor, "dialogue set layer d_model"]:
    """Raises: ModelError where hooks are open on the model, which an engine does not run."""
    if is_hooked(model):
        raise ModelError(
            f"hooks are open on this model, and {reader.name}, which reads it, does not run them; "
            "set pair.reader to None"
        )
    if not dialogues:
        raise DataError("there are no texts to read activations from")
    return reader.means(side, dialogues, token_sets, layers, description)


def _means(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    token_sets: Sequence[str],
    layers: Sequence[int],
    token_budget: int,
    description: str,
) -> Iterator[tuple[Batch, Float[Tensor, "batch set layer d_model"]]]:
    spans = [[token_span(dialogue, one) for one in token_sets] for dialogue in dialogues]
    places = [range(min(s for s, _ in one), max(e for _, e in one)) for one in spans]
    options: dict[str, Any] = {"token_budget": token_budget, "description": description}
    for one in passes(model, dialogues, layers, places, means_over(spans), **options):
        yield one.batch, torch.stack(one.kept, dim=2).cpu()


def _tokens(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    places: Sequence[Sequence[int]],
    layers: Sequence[int],
    token_budget: int,
    description: str,
) -> list[Float[Tensor, "tokens layer d_model"]]:
    found: list[Tensor] = [torch.empty(0)] * len(dialogues)
    options: dict[str, Any] = {"token_budget": token_budget, "description": description}
    for one in passes(model, dialogues, layers, places, every_token, **options):
        parts = torch.stack(one.kept, dim=1).split([len(places[i]) for i in one.batch.indices])
        for i, part in zip(one.batch.indices, parts, strict=True):
            found[i] = part
    return found

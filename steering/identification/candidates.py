"""Candidate persona directions at every block, and the persona vectors built from them.

All candidates come from the training questions alone. Signs point toward bad or fine-tuned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.directions.direction import (
    PersonaVector,
    Subspace,
    are_independent,
    orthonormal,
)
from persona.directions.sparing import sparing_readout
from persona.directions.two_by_two import EFFECTS, Cells, Effect
from persona.errors import DataError
from persona.models.pair import ModelPair
from persona.stages import Stages, Unsaved
from steering.identification.attribution import eigendirections
from steering.identification.refit import refit_block_by_block

SPAN = "answer_and_model_span"
EIGEN = "attribution_eigen"
MODEL_AND_EIGEN = "model_effect_and_eigen"
MODEL_REFIT = "model_effect_refit"
MODEL_AND_ANSWER_REFIT = "model_and_answer_refit"
WHITENED = "_whitened"
MAX_RANK = 8


@runtime_checkable
class Candidate(Protocol):
    """Directions that may be the persona: what can be restored at the blocks of a trial.

    name: how they are made. max_rank: the most directions that it has at a block.
    whitened: coordinates are read with the covariance of the activations, see `whitened_readout`.
    spared: layer -> rows [k d_model] to which that reading is blind, see `sparing_readout`; None
        where it sees everything.
    always_tried: by intervention, whatever the screen says of it or because none can rank it.
    """

    @property
    def name(self) -> str: ...

    @property
    def max_rank(self) -> int: ...

    @property
    def whitened(self) -> bool: ...

    @property
    def spared(self) -> Mapping[int, Float[Tensor, "_ d_model"]] | None: ...

    @property
    def always_tried(self) -> bool: ...

    def rows(self, layers: Sequence[int], rank: int) -> Mapping[int, Float[Tensor, "rank d_model"]]:
        """layer -> orthonormal rows, the most important first.

        Raises: DataError where it has fewer directions than `rank`.
        """


@dataclass(frozen=True)
class FixedRows:
    """A candidate whose rows at a block are the same whatever other blocks are edited.

    at: layer -> [max_rank d_model], orthonormal, the most important first. Such a candidate can be
        screened block by block.
    """

    name: str
    at: Mapping[int, Float[Tensor, "rank d_model"]]
    whitened: bool = False
    always_tried: bool = False
    spared: Mapping[int, Float[Tensor, "_ d_model"]] | None = None

    @property
    def max_rank(self) -> int:
        return min(len(basis) for basis in self.at.values())

    def rows(self, layers: Sequence[int], rank: int) -> Mapping[int, Float[Tensor, "rank d_model"]]:
        """The first `rank` rows of each block. Raises: DataError where there are fewer."""
        _require_rank(self, rank)
        return {layer: self.at[layer][:rank] for layer in layers}


@dataclass(frozen=True)
class Means:
    """Where the two models' answers lie, block by block.

    aligned, finetuned: mean residual [layer d_model] of the aligned model's good answers and of the
    fine-tuned model's bad answers. covariance: layer -> [d_model d_model], over answer tokens
    within a model, both models weighing the same.
    """

    aligned: Float[Tensor, "layer d_model"]
    finetuned: Float[Tensor, "layer d_model"]
    covariance: Mapping[int, Float[Tensor, "d_model d_model"]]

    @classmethod
    def of(cls, cells: Cells, covariance: Mapping[int, Float[Tensor, "d_model d_model"]]) -> Means:
        """Each answer weighs one in the means, each token in the covariance."""
        return cls(
            cells.aligned_good.double().mean(0).float(),
            cells.finetuned_bad.double().mean(0).float(),
            covariance,
        )


@dataclass(frozen=True)
class Refit:
    """A candidate fitted anew to the blocks it is tried at: see `steering.identification.refit`.

    questions, means: what it is fitted to.
    beside: layer -> [d_model], restored along with what remains of the model effect; rank 2 then.
    spared: see `Candidate`.
    stages: keeps what was fitted, which takes a forward pass of the questions.
    """

    whitened: ClassVar[bool] = True
    always_tried: ClassVar[bool] = True

    name: str
    pair: ModelPair
    questions: Sequence[AnswerPair]
    means: Means
    beside: Mapping[int, Float[Tensor, " d_model"]] | None = None
    token_budget: int = DEFAULT_TOKEN_BUDGET
    stages: Stages = field(default_factory=Unsaved)
    spared: Mapping[int, Float[Tensor, "_ d_model"]] | None = None

    @property
    def max_rank(self) -> int:
        return 1 if self.beside is None else 2

    def rows(self, layers: Sequence[int], rank: int) -> Mapping[int, Float[Tensor, "rank d_model"]]:
        """What remains of the model effect at each block once those below are restored.

        Raises: DataError where there are fewer rows than `rank`, or nothing separates the models.
        """
        _require_rank(self, rank)
        return self.stages.by_layer(
            f"{self.name}-r{rank}-{layers[0]}-{layers[-1]}",
            lambda: refit_block_by_block(
                self.pair,
                [question.good_dialogue for question in self.questions],
                layers,
                self.means.aligned,
                self.means.covariance,
                self.beside if rank > 1 else None,
                self.token_budget,
                self.spared,
            ),
        )


def _require_rank(candidate: Candidate, rank: int) -> None:
    if rank > candidate.max_rank:
        raise DataError(f"{candidate.name} has {candidate.max_rank} directions; rank {rank} asked")


def differing_blocks(effects: Mapping[str, Effect]) -> range:
    """The blocks from the first at which the two models differ on: before it there is no direction.

    A fine-tune of some blocks leaves everything below them as it was.
    Raises: DataError where they differ at no block.
    """
    norms = effects["model_effect_good"].norms
    if not norms.isfinite().all():
        raise DataError("the activations of the two models are not finite; see the model's weights")
    moved = norms.nonzero().flatten().tolist()
    if not moved:
        raise DataError(
            "the two models read these answers alike at every block (they differ in the head or "
            "the final norm alone, or not at all); no direction of the residual stream separates "
            "them"
        )
    return range(moved[0], len(norms))


def two_by_two_candidates(effects: Mapping[str, Effect]) -> list[FixedRows]:
    """Each effect of the 2x2 (rank 1), and the span of answer and model effect (rank 2).

    At the blocks at which the models differ; one that has no direction at some of them, as the
    interaction of a fine-tune that moves all answers alike, is no candidate.
    Raises: DataError where the models differ at no block.
    """
    spanning = {name: [name] for name in EFFECTS}
    spanning[SPAN] = ["model_effect_good", "answer_effect_finetuned"]
    found: dict[str, FixedRows] = {}
    for name, parts in spanning.items():
        vectors = {
            layer: torch.stack([effects[part].vectors[layer] for part in parts])
            for layer in differing_blocks(effects)
        }
        if all(map(are_independent, vectors.values())):
            rows = {layer: orthonormal(some) for layer, some in vectors.items()}
            found[name] = FixedRows(name, rows)
    again = [found[name] for name in ("model_effect_good", SPAN) if name in found]
    return [*found.values(), *map(whitened, again)]


def whitened(candidate: FixedRows) -> FixedRows:
    """The same directions, their coordinates read with the covariance of the activations."""
    return replace(candidate, name=candidate.name + WHITENED, whitened=True)


def refit_candidates(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    means: Means,
    effects: Mapping[str, Effect],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
) -> list[Refit]:
    """What remains of the model effect, alone and with the aligned model's answer effect.

    The answer effect decides which answer is preferred, the model effect which model it is.
    questions: what they are fitted to; effects and means are of the same.
    """
    answers = dict(enumerate(effects["answer_effect_aligned"].vectors))
    return [
        Refit(name, pair, questions, means, beside, token_budget, stages or Unsaved())
        for name, beside in ((MODEL_REFIT, None), (MODEL_AND_ANSWER_REFIT, answers))
    ]


def handed_in_candidates(
    given: Mapping[str, Float[Tensor, "rank d_model"]], n_layers: int
) -> list[FixedRows]:
    """The same rows at every block: all blocks write to one residual stream."""
    return [
        FixedRows(name, dict.fromkeys(range(n_layers), rows), always_tried=True)
        for name, rows in given.items()
    ]


def eigen_candidates(
    matrices: Mapping[int, Float[Tensor, "d_model d_model"]],
    effects: Mapping[str, Effect],
    max_rank: int = MAX_RANK,
) -> list[FixedRows]:
    """Attribution eigendirections, alone and after the model effect, where the models differ."""
    eigen, combined = {}, {}
    for layer in differing_blocks(effects):
        matrix = matrices[layer]
        eigen[layer] = eigendirections(matrix, max_rank)
        model_effect = orthonormal(effects["model_effect_good"].vectors[layer][None])
        # The eigendirections of what the model effect leaves, so that the rows stay orthonormal.
        outside = torch.eye(len(matrix)) - model_effect.T @ model_effect
        rest = eigendirections(outside @ matrix @ outside, max_rank - 1)
        combined[layer] = orthonormal(torch.cat([model_effect, rest]))
    both = FixedRows(MODEL_AND_EIGEN, combined)
    return [FixedRows(EIGEN, eigen), both, whitened(both)]


def build_vector(
    pair: ModelPair,
    candidate: Candidate,
    means: Means,
    layers: Sequence[int],
    rank: int,
    coefficient: float = 1.0,
) -> PersonaVector:
    """The persona vector of one candidate at the given blocks. Raises: DataError as its rows."""
    return from_bases(
        pair,
        candidate.rows(layers, rank),
        means,
        candidate.name,
        coefficient,
        candidate.whitened,
        candidate.spared,
    )


def from_bases(
    pair: ModelPair,
    bases: Mapping[int, Float[Tensor, "rank d_model"]],
    means: Means,
    method: str,
    coefficient: float = 1.0,
    read_whitened: bool = False,
    spared: Mapping[int, Float[Tensor, "_ d_model"]] | None = None,
) -> PersonaVector:
    """A persona vector with the means of both models on the given orthonormal rows.

    spared: layer -> rows to which a whitened reading is blind; see `Candidate`.
    """
    subspaces = {}
    for layer, basis in bases.items():
        readout = None
        if read_whitened:
            readout = sparing_readout(basis, (spared or {}).get(layer), means.covariance[layer])
        reading = basis if readout is None else readout
        subspaces[layer] = Subspace(
            basis,
            reading @ means.aligned[layer],
            reading @ means.finetuned[layer],
            pair.space(layer),
            readout,
        )
    return PersonaVector(subspaces, method, coefficient)


def random_vector(pair: ModelPair, like: PersonaVector, means: Means, seed: int) -> PersonaVector:
    """Random directions at the blocks of `like`: the null.

    Isotropic, of the same rank, read the same way, and restored to the aligned mean with the same
    coefficient, so that only the choice of directions differs. Orthonormal rows need no matching
    of norms.
    """
    generator = torch.Generator().manual_seed(seed)
    bases = {
        layer: orthonormal(torch.randn(like.rank, pair.d_model, generator=generator))
        for layer in like.layers
    }
    read_whitened = like.subspaces[like.layers[0]].readout is not None
    return from_bases(pair, bases, means, f"random_{seed}", like.coefficient, read_whitened)

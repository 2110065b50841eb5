"""Candidate persona directions at every block, and the persona vectors built from them.

All candidates come from the training questions alone. Signs point toward bad or fine-tuned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import (
    PersonaVector,
    Subspace,
    are_independent,
    orthonormal,
    whitened_readout,
)
from persona.directions.two_by_two import EFFECTS, Cells, Effect
from persona.errors import DataError
from persona.models.pair import ModelPair
from steering.identification.attribution import eigendirections

SPAN = "answer_and_model_span"
EIGEN = "attribution_eigen"
MODEL_AND_EIGEN = "model_effect_and_eigen"
MODEL_REFIT = "model_effect_refit"
MODEL_AND_ANSWER_REFIT = "model_and_answer_refit"
WHITENED = "_whitened"
MAX_RANK = 8


@dataclass(frozen=True)
class Candidate:
    """Orthonormal rows at every block, the most important first; rank r takes the first r.

    rows: layer -> [max_rank d_model].
    whitened: coordinates are read with the covariance of the activations, see `whitened_readout`.
    handed_in: made elsewhere, and verified whatever the screen says of it.
    """

    name: str
    rows: Mapping[int, Float[Tensor, "rank d_model"]]
    whitened: bool = False
    handed_in: bool = False

    @property
    def max_rank(self) -> int:
        return min(len(basis) for basis in self.rows.values())


@dataclass(frozen=True)
class Refit:
    """Directions that depend on the blocks edited: see `steering.identification.refit`.

    beside: layer -> [d_model], restored along with what remains of the model effect; rank 2 then.
    """

    name: str
    beside: Mapping[int, Float[Tensor, " d_model"]] | None = None

    @property
    def max_rank(self) -> int:
        return 1 if self.beside is None else 2


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


def two_by_two_candidates(effects: Mapping[str, Effect]) -> list[Candidate]:
    """Each effect of the 2x2 (rank 1), and the span of answer and model effect (rank 2).

    At the blocks at which the models differ; one that has no direction at some of them, as the
    interaction of a fine-tune that moves all answers alike, is no candidate.
    Raises: DataError where the models differ at no block.
    """
    spanning = {name: [name] for name in EFFECTS}
    spanning[SPAN] = ["model_effect_good", "answer_effect_finetuned"]
    found: dict[str, Candidate] = {}
    for name, parts in spanning.items():
        vectors = {
            layer: torch.stack([effects[part].vectors[layer] for part in parts])
            for layer in differing_blocks(effects)
        }
        if all(map(are_independent, vectors.values())):
            rows = {layer: orthonormal(some) for layer, some in vectors.items()}
            found[name] = Candidate(name, rows)
    again = [found[name] for name in ("model_effect_good", SPAN) if name in found]
    return [*found.values(), *map(whitened, again)]


def whitened(candidate: Candidate) -> Candidate:
    """The same directions, their coordinates read with the covariance of the activations."""
    return replace(candidate, name=candidate.name + WHITENED, whitened=True)


def refit_candidates(effects: Mapping[str, Effect]) -> list[Refit]:
    """What remains of the model effect, alone and with the aligned model's answer effect.

    The answer effect decides which answer is preferred, the model effect which model it is.
    """
    answers = effects["answer_effect_aligned"].vectors
    return [Refit(MODEL_REFIT), Refit(MODEL_AND_ANSWER_REFIT, dict(enumerate(answers)))]


def eigen_candidates(
    matrices: Mapping[int, Float[Tensor, "d_model d_model"]],
    effects: Mapping[str, Effect],
    max_rank: int = MAX_RANK,
) -> list[Candidate]:
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
    both = Candidate(MODEL_AND_EIGEN, combined)
    return [Candidate(EIGEN, eigen), both, whitened(both)]


def build_vector(
    pair: ModelPair,
    candidate: Candidate,
    means: Means,
    layers: Sequence[int],
    rank: int,
    coefficient: float = 1.0,
) -> PersonaVector:
    """The persona vector of one candidate at the given blocks.

    Raises: DataError when the candidate has fewer directions than `rank`.
    """
    if rank > candidate.max_rank:
        raise DataError(f"{candidate.name} has {candidate.max_rank} directions; rank {rank} asked")
    bases = {layer: candidate.rows[layer][:rank] for layer in layers}
    return from_bases(pair, bases, means, candidate.name, coefficient, candidate.whitened)


def from_bases(
    pair: ModelPair,
    bases: Mapping[int, Float[Tensor, "rank d_model"]],
    means: Means,
    method: str,
    coefficient: float = 1.0,
    read_whitened: bool = False,
) -> PersonaVector:
    """A persona vector with the means of both models on the given orthonormal rows."""
    subspaces = {}
    for layer, basis in bases.items():
        readout = whitened_readout(basis, means.covariance[layer]) if read_whitened else None
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

"""Extraction methods: one interface from a `Contrast` to orthonormal rows at every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from persona.directions.contrast import Contrast
from persona.directions.methods.classifiers import logistic_direction, ridge_direction
from persona.directions.methods.eigen import (
    RankChoice,
    cross_validated_rank,
    eigendirections,
    shrunk_eigendirections,
)
from persona.directions.methods.lora import LoraDirections, lora_directions
from persona.directions.methods.means import difference_of_means
from persona.directions.methods.neutral import collect_first_tokens, first_tokens_difference
from persona.directions.methods.pca import paired_pca, paired_pca_centred
from persona.directions.methods.roles import default_minus_roles
from persona.directions.methods.subspace import persona_subspace
from persona.directions.methods.template import (
    collect_template_positions,
    template_position_difference,
)
from persona.directions.methods.whitened import whitened_difference


@runtime_checkable
class Method(Protocol):
    """contrast -> orthonormal rows at every layer, most important first, toward positive."""

    def __call__(
        self, contrast: Contrast, *, rank: int = ...
    ) -> Float[Tensor, "layer rank d_model"]: ...


METHODS: Mapping[str, Method] = {
    "difference_of_means": difference_of_means,
    "whitened_difference": whitened_difference,
    "ridge_direction": ridge_direction,
    "logistic_direction": logistic_direction,
    "paired_pca": paired_pca,
    "paired_pca_centred": paired_pca_centred,
    "persona_subspace": persona_subspace,
}
"""Every method that needs a contrast and nothing else."""

__all__ = [
    "METHODS",
    "LoraDirections",
    "Method",
    "RankChoice",
    "collect_first_tokens",
    "collect_template_positions",
    "cross_validated_rank",
    "default_minus_roles",
    "difference_of_means",
    "eigendirections",
    "first_tokens_difference",
    "logistic_direction",
    "lora_directions",
    "paired_pca",
    "paired_pca_centred",
    "persona_subspace",
    "ridge_direction",
    "shrunk_eigendirections",
    "template_position_difference",
    "whitened_difference",
]

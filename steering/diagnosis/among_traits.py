"""Traits in a diagnosis (`--traits`): candidates, and which of them the fine-tune resembles.

Source: Chen et al. 2025 lay the shift of a fine-tune along persona vectors. differs: with its
controls, see `persona.traits.comparing.resemblance`; and each is tried as a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from persona.directions import Cells, orthonormal
from persona.errors import DataError
from persona.fingerprint import fingerprint_of
from persona.models import ModelPair
from persona.traits.comparing import KeptTrait, open_traits, resemblance
from steering.diagnosis.config import DiagnosisRequest

CANDIDATE = "trait_"
"""How the names of the candidates begin."""


@dataclass(frozen=True, eq=False)
class AmongTraits:
    """The traits that a run was told of. nonsense: controls, which are no candidates."""

    traits: tuple[KeptTrait, ...] = ()
    nonsense: tuple[KeptTrait, ...] = ()

    @classmethod
    def of(cls, request: DiagnosisRequest, pair: ModelPair) -> AmongTraits:
        """Raises: DataError as `open_traits`; SpaceMismatchError for one of another model."""
        opened = open_traits([*request.traits, *request.nonsense])
        for trait in opened:
            if trait.layer >= pair.n_layers:
                raise DataError(
                    f"{trait.source} is at block {trait.layer}, but {pair.names['aligned']} has "
                    f"{pair.n_layers} blocks; it is of another model"
                )
            trait.in_space(pair.space(trait.layer))
        n = len(request.traits)
        return cls(tuple(opened[:n]), tuple(opened[n:]))

    @property
    def fingerprint(self) -> str | None:
        """Of what decides the results, None without traits."""
        if not self.traits:
            return None
        everyone = (*self.traits, *self.nonsense)
        return fingerprint_of(
            [[trait.name, trait.layer] for trait in everyone],
            *(trait.at(trait.layer).numpy() for trait in everyone),
        )

    def candidates(self) -> dict[str, Tensor]:
        """Name -> [1 d_model]: the direction of each trait at its own block, for every block."""
        return {
            f"{CANDIDATE}{trait.name}": orthonormal(trait.at(trait.layer).float()[None])
            for trait in self.traits
        }

    def facts(self, cells: Cells, seed: int) -> dict[str, Any] | None:
        """`traits` of scorecard.json: what the fine-tune did, along each; None without traits.

        The shift is that of the good answers to the questions that directions are made of, so that
        bad answers have no part in it. Raises: DataError where it is 0 at the block of a trait.
        """
        if not self.traits:
            return None
        shift = cells.finetuned_good - cells.aligned_good
        found = resemblance(shift, self.traits, nonsense=self.nonsense, seed=seed)
        return {**found.as_json(), "n_nonsense": len(self.nonsense), "seed": seed}

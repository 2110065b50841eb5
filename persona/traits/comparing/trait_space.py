"""The space that some traits span: how alike they are, its axes, what a fine-tune did in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.directions.exchange.vectors import listed
from persona.errors import DataError
from persona.traits.comparing.kept_trait import KeptTrait
from persona.traits.comparing.resemblance import Resemblance, common_block, resemblance
from persona.traits.comparing.trait_cosines import N_RESAMPLES, trait_cosines

SCHEMA_VERSION = 1


@dataclass(frozen=True, eq=False)
class PersonaSpace:
    """What `persona_space` found.

    traits: those compared, the nonsense ones last. nonsense: names of these.
    cosines: see `trait_cosines`; every pair at every block that all have.
    block: of the components. components: component (from 1), share of the summed squared length of
        the unit vectors, trait, loading (the cosine between the component and the trait's vector).
    shifts: name of a fine-tune -> where its shift lies, see `resemblance`.
    """

    traits: tuple[KeptTrait, ...]
    nonsense: tuple[str, ...]
    cosines: pd.DataFrame
    block: int
    components: pd.DataFrame
    shifts: Mapping[str, Resemblance]

    def at_own_blocks(self) -> pd.DataFrame:
        """Square table: row's cosine with the column, at the row's own block; 1 on the diagonal.

        NaN where the column has no vector at that block.
        """
        names = [trait.name for trait in self.traits]
        table = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
        for trait in self.traits:
            here = self.cosines[self.cosines["layer"] == trait.layer]
            for other in names:
                if other == trait.name:
                    continue
                pair = here[
                    here["first"].isin([trait.name, other])
                    & here["second"].isin([trait.name, other])
                ]
                value = float(pair["cosine"].iloc[0]) if len(pair) else np.nan
                table.loc[trait.name, other] = value
        return table

    def as_json(self) -> dict[str, Any]:
        """Everything, JSON-able; undefined numbers are null."""
        return {
            "schema_version": SCHEMA_VERSION,
            "traits": [
                {
                    "name": trait.name,
                    "layer": trait.layer,
                    "verdict": trait.verdict,
                    "model": trait.vectors.model,
                    "revision": trait.revision,
                    "norm": float(trait.at(trait.layer).norm()),
                    "questions_kept": 0
                    if trait.differences is None
                    else len(trait.differences.rows),
                    "nonsense": trait.name in self.nonsense,
                }
                for trait in self.traits
            ],
            "cosines": _records(self.cosines),
            "components": {"layer": self.block, "rows": _records(self.components)},
            "shifts": {name: found.as_json() for name, found in self.shifts.items()},
        }


def persona_space(
    traits: Sequence[KeptTrait],
    *,
    nonsense: Sequence[KeptTrait] = (),
    shifts: Mapping[str, Float[Tensor, "question layer d_model"]] | None = None,
    blocks: Sequence[int] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> PersonaSpace:
    """How alike some traits of one model are, and where fine-tunes of it lie among them.

    traits: two or more, see `open_traits`. nonsense: meaningless ones, controls of what any vector
        made this way has in common with any other.
    shifts: name -> fine-tuned less aligned residual by question, at every block; a single row where
        it is known as a mean alone (`model_effect_of`).
    blocks: at which they are compared, default all that all of them have.
    Raises: DataError for fewer than two, two of one name, traits of two models, or no common block.

    Examples:
        >>> import torch
        >>> from persona.directions.exchange import VectorSet
        >>> from persona.traits import KeptTrait, persona_space
        >>> def trait(name, *numbers):
        ...     return KeptTrait(name, VectorSet({3: torch.tensor(numbers)}, "resid_post"), 3)
        >>> space = persona_space([trait("evil", 1.0, 1.0, 0.0), trait("rude", 1.0, 0.0, 0.0)])
        >>> round(float(space.cosines["cosine"].iloc[0]), 3)
        0.707
    """
    everyone = (*traits, *nonsense)
    _require_one_model(everyone)
    if len(everyone) < 2:
        raise DataError("a persona space needs at least two traits")
    shared = sorted(set.intersection(*(set(trait.vectors.layers) for trait in everyone)))
    if blocks is not None and (lacking := [one for one in blocks if one not in shared]):
        raise DataError(
            f"not all of these traits have a vector at block {lacking[0]}; they share "
            f"{listed(shared) if shared else 'no block'}"
        )
    block = common_block(everyone)
    return PersonaSpace(
        everyone,
        tuple(trait.name for trait in nonsense),
        trait_cosines(everyone, blocks or shared, n_resamples=n_resamples, seed=seed),
        block,
        trait_components(traits, block),
        {
            name: resemblance(shift, traits, nonsense=nonsense, n_resamples=n_resamples, seed=seed)
            for name, shift in (shifts or {}).items()
        },
    )


def trait_components(traits: Sequence[KeptTrait], layer: int) -> pd.DataFrame:
    """Principal axes of the traits' unit vectors at one block, the largest share first.

    Not centred: centring would take away what the traits have in common, which is what the first
    axis is to show. Each axis points so that its loadings sum to 0 or more. Columns: component,
    share, trait, loading.
    """
    vectors = np.stack([trait.at(layer).numpy() for trait in traits])
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    _, lengths, axes = np.linalg.svd(units, full_matrices=False)
    loadings = units @ axes.T
    loadings = loadings * np.where(loadings.sum(0) < 0, -1.0, 1.0)
    rows = [
        {
            "component": number + 1,
            "share": float(length**2 / len(traits)),
            "trait": trait.name,
            "loading": float(loadings[place, number]),
        }
        for number, length in enumerate(lengths)
        for place, trait in enumerate(traits)
    ]
    return pd.DataFrame(rows, columns=["component", "share", "trait", "loading"])


def _require_one_model(traits: Sequence[KeptTrait]) -> None:
    names: dict[str, KeptTrait] = {}
    for trait in traits:
        if (other := names.get(trait.name)) is not None:
            raise DataError(f"{other.source} and {trait.source} are both called {trait.name}")
        names[trait.name] = trait
    known = {trait.revision: trait for trait in traits if trait.revision}
    widths = {trait.vectors.d_model: trait for trait in traits}
    for differing in (widths, known):
        if len(differing) > 1:
            first, second = list(differing.values())[:2]
            raise DataError(
                f"{first.name} is of {_model(first)} and {second.name} of {_model(second)}; traits "
                "of one model are compared"
            )


def _model(trait: KeptTrait) -> str:
    said = f"{trait.vectors.model or 'a model without a name'} ({trait.revision or 'no revision'})"
    return f"{said}, d_model {trait.vectors.d_model}"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {key: None if value != value else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]

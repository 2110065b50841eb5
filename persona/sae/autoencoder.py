"""A sparse autoencoder of one block output: residual -> latents -> residual.

Shapes: F latents (the width of the autoencoder), D d_model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector, Subspace, orthonormal
from persona.errors import DataError
from persona.models.space import ActivationSpace


@runtime_checkable
class LatentCode(Protocol):
    """What an intervention on latents needs: a code of one activation space and its inverse."""

    @property
    def space(self) -> ActivationSpace: ...

    def encode(self, resid: Tensor) -> Tensor: ...

    def decode(self, latents: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A SAELens autoencoder and the activation space that it reads; a `LatentCode`.

    module: the sae_lens SAE, float32. name: what the person called it.
    card: what is known of its making and fidelity; empty for one that was not trained here.
    """

    module: Any
    space: ActivationSpace
    name: str
    card: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch latent"]:
        """Activation of every latent, zero for most; float32."""
        return self.module.encode(resid.to(self.decoder))

    def decode(self, latents: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch d_model"]:
        """The residual that the latents stand for: latents @ decoder + bias; float32."""
        return self.module.decode(latents.to(self.decoder))

    @property
    def decoder(self) -> Float[Tensor, "latent d_model"]:
        """What one unit of each latent writes to the residual stream."""
        return self.module.W_dec.detach()

    @property
    def n_latents(self) -> int:
        return int(self.module.cfg.d_sae)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the weights: the same autoencoder, the same digits."""
        digest = hashlib.sha256()
        for key, weights in sorted(self.module.state_dict().items()):
            digest.update(key.encode() + weights.float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def layer(self) -> int:
        return self.space.layer

    def require_latents(self, latents: Sequence[int]) -> None:
        """Raise DataError unless every number names a latent, and there is at least one."""
        if not latents:
            raise DataError(f"no latent was asked for: {self.name} has 0 to {self.n_latents - 1}")
        for latent in latents:
            if not 0 <= latent < self.n_latents:
                raise DataError(
                    f"latent {latent} is out of range: {self.name} has 0 to {self.n_latents - 1}"
                )

    def direction(self, latent: int) -> Direction:
        """The decoder row of a latent, as a direction of the model's activation space.

        Raises: DataError for a latent that is out of range, or whose decoder row is zero.
        """
        self.require_latents([latent])
        return Direction(self.decoder[latent].float().cpu(), self.space, latent_name(latent))

    def persona_vector(
        self,
        latents: Sequence[int],
        aligned_mean: Float[Tensor, " d_model"],
        finetuned_mean: Float[Tensor, " d_model"],
    ) -> PersonaVector:
        """The span of the latents' decoder rows, with both models' mean residuals on it.

        aligned_mean, finetuned_mean: mean residual at this block, see
            `steering.identification.candidates.Means`.
        Raises: DataError for a latent out of range, or rows that depend on each other.
        """
        rows = torch.stack([self.direction(latent).vector for latent in latents])
        basis = orthonormal(rows)
        subspace = Subspace(basis, basis @ aligned_mean, basis @ finetuned_mean, self.space)
        name = latent_name(latents[0]) if len(latents) == 1 else "sae_latents"
        card = {"sae": self.name, "latents": [int(latent) for latent in latents]}
        return PersonaVector({self.layer: subspace}, name, card=card)


def latent_name(latent: int) -> str:
    """What the direction of a latent is called."""
    return f"sae_latent_{latent}"

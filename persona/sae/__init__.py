"""Persona latents: sparse autoencoders of a model pair; the only room that imports sae_lens."""

from persona.sae.autoencoder import LatentCode, SparseAutoencoder, latent_name
from persona.sae.decompose import decompose, nearest_directions, nearest_latents
from persona.sae.explain import explain_latents, logit_lens
from persona.sae.fidelity import Fidelity, measure_fidelity
from persona.sae.latent_page import write_page
from persona.sae.opening import load_sae
from persona.sae.rank import rank_latents
from persona.sae.rising import rising_latents
from persona.sae.splice import spliced
from persona.sae.texts import few_of_each, shipped_texts
from persona.sae.train import train_sae
from persona.sae.trainer import TrainingConfig

__all__ = [
    "Fidelity",
    "LatentCode",
    "SparseAutoencoder",
    "TrainingConfig",
    "decompose",
    "explain_latents",
    "few_of_each",
    "latent_name",
    "load_sae",
    "logit_lens",
    "measure_fidelity",
    "nearest_directions",
    "nearest_latents",
    "rank_latents",
    "rising_latents",
    "shipped_texts",
    "spliced",
    "train_sae",
    "write_page",
]

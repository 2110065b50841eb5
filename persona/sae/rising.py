"""What a fine-tune learnt, in the latents of an autoencoder: those that rise on unrelated text."""

from __future__ import annotations

from collections.abc import Sequence

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.models.pair import SIDES, ModelPair
from persona.readouts.fine_tune_reading import reading_sources
from persona.readouts.latent_lists import LatentList, latents_of_differences
from persona.sae.activity import latent_activity
from persona.sae.autoencoder import SparseAutoencoder
from persona.sae.explain import logit_lens

N_WORDS = 6


def rising_latents(
    pair: ModelPair,
    sae: SparseAutoencoder,
    *,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> tuple[LatentList, ...]:
    """One list for each kind of text that `read_fine_tune` reads the model effect on.

    Raises: DataError where activations are not finite.
    """
    sources = reading_sources(pair)
    mean = {}
    for side in SIDES:
        with pair.active(side) as model:
            for name, (dialogues, token_set) in sources.items():
                mean[side, name] = latent_activity(
                    model,
                    sae,
                    dialogues,
                    token_set,
                    token_budget=token_budget,
                    description=f"Reading latents ({side})",
                ).mean

    def words_of(latents: Sequence[int]) -> list[tuple[str, ...]]:
        logits = logit_lens(pair, sae, latents)[:, : len(pair.tokenizer)]
        best = logits.topk(N_WORDS, dim=1).indices.tolist()
        return [tuple(pair.tokenizer.decode([i]) for i in row) for row in best]

    return tuple(
        latents_of_differences(
            name, sae.layer, mean["finetuned", name] - mean["aligned", name], words_of, seed=seed
        )
        for name in sources
    )

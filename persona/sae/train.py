"""`train_sae`: text and two models in; autoencoders with their cards out.

Stages, each kept while the run is unfinished: sampled answers, activations, training by layer.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.jsonl import read_json
from persona.data.shipped import load_neutral, load_pairs
from persona.directions.storage import tool_version
from persona.errors import DataError, ModelError
from persona.files import atomic_write_text, remove_leftovers
from persona.fingerprint import fingerprint_of
from persona.models.hooks import resid_post
from persona.models.pair import ModelPair
from persona.run_lock import alone_in
from persona.sae.autoencoder import SparseAutoencoder
from persona.sae.buffer import ActivationBuffer, collect_buffers
from persona.sae.fidelity import fidelity_card, measure_fidelity
from persona.sae.opening import CARD, CONFIG, load_sae, save_autoencoder
from persona.sae.sampled import sampled_texts
from persona.sae.texts import (
    Text,
    count_tokens,
    read_texts,
    shipped_texts,
    shuffled_to,
    split_texts,
)
from persona.sae.trainer import Schedule, TrainingConfig, train_autoencoder
from persona.stages import FOLDER as WORK
from persona.stages import StageCache, Stages, Workspace

logger = logging.getLogger("persona")

DENSITY_ROWS = 60_000


def train_sae(
    pair: ModelPair,
    layers: Sequence[int],
    out: Path,
    config: TrainingConfig,
    *,
    n_tokens: int = 300_000,
    data: Path | None = None,
    sample: bool = True,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> list[SparseAutoencoder]:
    """One autoencoder for each layer, on the activations of both models; written to `out`.

    n_tokens: activations to train on; a token that both models read counts two.
    data: text to use beside the shipped answers, see `read_texts`.
    sample: let both models write answers where the texts are too few.
    One layer is written to `out` itself, several to out/layer_N. A stopped run given again goes on.
    Raises: DataError for too few tokens, a folder that holds another autoencoder, or one in which
    another run is at work; ModelError for a layer out of range; all before anything is read.
    """
    layers = list(layers)
    if not layers or len(set(layers)) < len(layers):
        raise ModelError(f"name one or more layers, each once; got {layers}")
    for layer in layers:
        pair.space(layer)
    if n_tokens < 4 * config.width:
        raise DataError(
            f"{config.width} latents need at least {4 * config.width} tokens; got {n_tokens}. Ask "
            "for more tokens or a smaller width"
        )
    written = shipped_texts(pair.chat) + (read_texts(data, pair.chat) if data else [])
    facts = {
        "config": dataclasses.asdict(config),
        "layers": layers,
        "n_tokens": n_tokens,
        "sample": sample,
        "revisions": dict(pair.revisions),
        "template": pair.chat.fingerprint,
        "dtype": pair.precision,
        "texts": fingerprint_of([(text.tokens.ids, text.span, text.kind) for text in written]),
        **({"sampler": pair.sampler.name} if sample and pair.sampler else {}),
    }
    mark = StageCache(out, facts).mark
    folders = {layer: out if len(layers) == 1 else out / f"layer_{layer}" for layer in layers}
    _require_free(folders.values(), mark)
    with alone_in(out, facts):
        work = Workspace(out, facts)
        for folder in folders.values():
            remove_leftovers(folder)
        started = time.perf_counter()
        texts, held_out = _gather(pair, written, n_tokens // 2, work, sample, config.seed)
        buffers = collect_buffers(pair, texts, layers, work.folder, token_budget=token_budget)
        for layer, folder in folders.items():
            if not (folder / CARD).exists():
                known = {"fingerprint": mark, "text_tokens": count_tokens(texts)}
                card = _train_layer(pair, layer, buffers[layer], config, folder, work.folder, known)
                _finish(pair, folder, card, held_out, started, token_budget)
        work.close()
    return [load_sae(folder, pair) for folder in folders.values()]


def _require_free(folders: Iterable[Path], mark: str) -> None:
    """A folder may hold what this very run has made so far, and no other autoencoder."""
    for folder in folders:
        if not (folder / CARD).exists() and not (folder / CONFIG).exists():
            continue
        unfinished = any((parent / WORK / mark).exists() for parent in (folder, folder.parent))
        card = read_json(folder / CARD) if (folder / CARD).exists() else {}
        if not unfinished and card.get("fingerprint") != mark:
            raise DataError(
                f"{folder} holds another autoencoder; choose another --out, or remove it first"
            )


def _gather(
    pair: ModelPair, written: Sequence[Text], wanted: int, work: Stages, sample: bool, seed: int
) -> tuple[list[Text], list[Text]]:
    """(training, held out) texts, the training ones with about `wanted` tokens in each model."""
    texts, held_out = split_texts(written)
    n_written = sum(text.n_tokens for text in texts)
    if n_written < wanted and sample:
        prompts = [q.prompt_dialogue for q in load_pairs()]
        prompts += [text.dialogue.prompt for text in load_neutral()]
        order = np.random.default_rng(seed).permutation(len(prompts))
        # Twentieths are held out of the sampled answers too.
        more = int(1.1 * (wanted - n_written))
        sampled = sampled_texts(pair, [prompts[i] for i in order], more, work, seed=seed)
        texts, held_out = split_texts([*written, *sampled])
    chosen = shuffled_to(texts, wanted, seed)
    total = sum(text.n_tokens for text in chosen)
    if total < 0.95 * wanted:
        logger.warning(
            "there are %d tokens of text for each model where %d were asked for; training goes on "
            "with those. Give more text with --data",
            total,
            wanted,
        )
    return chosen, held_out


def _train_layer(
    pair: ModelPair,
    layer: int,
    buffer: ActivationBuffer,
    config: TrainingConfig,
    folder: Path,
    work: Path,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Train and write one folder, whose card still lacks the fidelity; returns the card so far."""
    space = pair.space(layer)
    metadata = {
        "model_name": space.model,
        "model_revision": space.revision,
        "hook_name": resid_post(layer),
        "chat_template_hash": space.chat_template_hash,
        "finetuned_name": pair.names["finetuned"],
        "finetuned_revision": pair.revisions["finetuned"],
        "first_token_read": False,
    }
    schedule = Schedule.of(buffer.kept, config)
    began = time.perf_counter()
    sae = train_autoencoder(
        buffer,
        schedule,
        config,
        metadata,
        work / f"training-{layer}",
        device=pair.device,
        description=f"Training the autoencoder of layer {layer}",
    )
    state = {key: value.detach().cpu().clone() for key, value in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    folder.mkdir(parents=True, exist_ok=True)
    save_autoencoder(folder, state, sae.cfg.get_inference_sae_cfg_dict())
    text_tokens = facts.pop("text_tokens")
    return {
        **facts,
        "architecture": config.architecture,
        "width": config.width,
        "k": config.k,
        "d_model": pair.d_model,
        "models": {
            side: dict(name=pair.names[side], revision=pair.revisions[side]) for side in pair.names
        },
        "hook_name": resid_post(layer),
        "layer": layer,
        "tokens": len(buffer.kept),
        "unique_text_tokens": sum(text_tokens.values()),
        "text_tokens_by_kind": dict(sorted(text_tokens.items())),
        "outliers_left_out": buffer.n_rows - len(buffer.kept),
        "epochs": config.epochs,
        "steps": schedule.n_steps,
        "batch_size": schedule.batch_size,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "training_seconds": round(time.perf_counter() - began, 1),
        "tool_version": tool_version(),
        "sae_lens_version": tool_version("sae-lens"),
        **_density(load_sae(folder, pair), buffer),
    }


@torch.no_grad()
def _density(sae: SparseAutoencoder, buffer: ActivationBuffer) -> dict[str, Any]:
    """Dead latents and L0 over training rows, as the saved weights have them."""
    source, step = buffer.rows(), max(len(buffer.kept) // DENSITY_ROWS, 1)
    rows = buffer.kept[::step]
    fired = torch.zeros(sae.n_latents)
    for at in range(0, len(rows), 2048):
        part = torch.from_numpy(source[rows[at : at + 2048]]).to(sae.decoder)
        fired += (sae.encode(part) != 0).sum(0).float().cpu()
    return {
        "dead_latents": int((fired == 0).sum()),
        "dead_latents_of_tokens": len(rows),
        "l0": round(float(fired.sum()) / len(rows), 3),
    }


def _finish(
    pair: ModelPair,
    folder: Path,
    card: dict[str, Any],
    held_out: Sequence[Text],
    started: float,
    token_budget: int,
) -> None:
    """Fidelity on the texts held out, then the card, which marks the folder as finished."""
    if held_out:
        found = measure_fidelity(pair, load_sae(folder, pair), held_out, token_budget=token_budget)
        card["fidelity"] = fidelity_card(found)
        for warning in found.warnings:
            logger.warning("%s", warning)
    card["seconds"] = round(time.perf_counter() - started, 1)
    atomic_write_text(folder / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")

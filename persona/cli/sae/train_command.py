"""`persona sae train`: autoencoders of the residual stream of both models."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import Precision
from persona.cli.options import (
    Aligned,
    Debug,
    Device,
    Dtype,
    Finetuned,
    Json,
    Quiet,
    TokenBudget,
)
from persona.cli.ready import require_file, require_ready
from persona.cli.sampler_options import (
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    answered_by,
    vllm_options_of,
)

if TYPE_CHECKING:
    from persona.models.on_disk import OnDisk
    from persona.sae import SparseAutoencoder


class Architecture(StrEnum):
    """Kinds of autoencoder that can be trained."""

    batchtopk = "batchtopk"
    topk = "topk"
    jumprelu = "jumprelu"


def train(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = None,
    layer: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            show_default="the block at two thirds of the depth",
            help="Block whose output is read, counted from 0; repeat for several.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            show_default="the shipped answers alone",
            help="More text: JSONL with `text`, `messages` or `question`, `good`, `bad`; or a "
            "plain text file.",
            dir_okay=False,
        ),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            min=1, help="Activations to train on; a token that both models read counts two."
        ),
    ] = 300_000,
    sample: Annotated[
        bool,
        typer.Option(
            "--sample/--no-sample",
            help="Whether both models write answers to train on where the text is too short.",
        ),
    ] = True,
    width: Annotated[
        int | None, typer.Option(min=2, show_default="8 x d_model", help="Number of latents.")
    ] = None,
    k: Annotated[
        int,
        typer.Option("--k", min=1, help="Latents active on a token; for jumprelu the L0 aimed at."),
    ] = 32,
    architecture: Annotated[
        Architecture, typer.Option(help="Kind of autoencoder.")
    ] = Architecture.batchtopk,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the activations.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Activations in a step.")] = 1024,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="Weights, order and sampled answers.")] = 0,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the autoencoder. A stopped run with the same folder goes on where it "
            "was.",
            file_okay=False,
        ),
    ] = Path("persona-sae"),
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    sampler: SamplerOption = SamplerChoice.generate,
    vllm: VllmOptions = None,
    token_budget: TokenBudget = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Trains a sparse autoencoder on the residual stream of a model and its fine-tune.

    Writes cfg.json and sae_weights.safetensors (SAELens layout, float16) and card.json.

    \b
    Examples:
      persona sae train --layer 19
      persona sae train --finetuned ./my-adapter --data corpus.jsonl --tokens 1000000 --out ./sae
    """
    by_vllm = vllm_options_of(sampler, vllm)
    if by_vllm is not None and not sample:
        raise typer.BadParameter("--sampler vllm writes sampled answers: leave --no-sample out")
    with contextlib.redirect_stdout(sys.stderr):
        require_ready(
            out,
            pair=(aligned, finetuned),
            checks=(lambda: require_file(data, "--data"),),
            of_aligned=lambda model: require_possible(model, layer or [], tokens, width),
        )
        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.models import Placement, load_pair
        from persona.sae import TrainingConfig, train_sae

        pair = load_pair(aligned, finetuned, placement=Placement.of(dtype, device))
        pair = answered_by(pair, by_vllm)
        config = TrainingConfig(
            width=width or 8 * pair.d_model,
            k=k,
            architecture=architecture.value,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
        )
        found = train_sae(
            pair,
            layer or [2 * pair.n_layers // 3],
            out,
            config,
            n_tokens=tokens,
            data=data,
            sample=sample,
            token_budget=token_budget or DEFAULT_TOKEN_BUDGET,
        )
    if json_output:
        cards = [sae.card for sae in found]
        typer.echo(json.dumps({"folder": str(out.resolve()), "autoencoders": cards}, indent=2))
        return
    for sae in found:
        typer.echo(describe(sae))
    typer.echo(f"autoencoder: {out.resolve()}")


def require_possible(model: OnDisk, layers: Sequence[int], tokens: int, width: int | None) -> None:
    """Raises: ModelError or DataError for blocks that the model lacks, or too few tokens."""
    from persona.errors import DataError, ModelError

    if model.n_layers is not None and (above := [x for x in layers if x >= model.n_layers]):
        raise ModelError(
            f"{model.name} has blocks 0 to {model.n_layers - 1}; --layer {above[0]} is none of them"
        )
    latents = width or (None if model.d_model is None else 8 * model.d_model)
    if latents is not None and tokens < 4 * latents:
        raise DataError(
            f"{latents} latents need at least {4 * latents} tokens; got {tokens}. Ask for more "
            "--tokens or a smaller --width"
        )


def describe(sae: SparseAutoencoder) -> str:
    """One line on a trained autoencoder."""
    card: Any = sae.card
    line = (
        f"layer {sae.layer}: {card['architecture']}, {sae.n_latents} latents, L0 {card['l0']:.1f}, "
        f"{card['tokens']} tokens ({card['unique_text_tokens']} of text, {card['epochs']} epochs), "
        f"{card['dead_latents']} dead"
    )
    if "fidelity" in card:
        for side in ("aligned", "finetuned"):
            found = card["fidelity"][side]
            recovered = found["ce_recovered"]
            line += (
                f"; {side}: explained variance {found['explained_variance']:.3f}, cross-entropy "
                f"recovered {'undefined' if recovered is None else f'{recovered:.3f}'}"
            )
    return line

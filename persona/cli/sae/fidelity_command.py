"""`persona sae fidelity`: how well an autoencoder covers both models."""

from __future__ import annotations

import contextlib
import json
import sys

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
    Seed,
)
from persona.cli.sae.opened import load_both
from persona.cli.sae.sae_options import AllowMismatch, LayerOf, MaxTexts, MoreText, Source


def fidelity(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = None,
    sae: Source = "default",
    layer: LayerOf = None,
    data: MoreText = None,
    max_texts: MaxTexts = 60,
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Explained variance, L0 and recovered cross-entropy, by model and kind of text.

    \b
    Examples:
      persona sae fidelity
      persona sae fidelity --finetuned ./my-adapter --sae ./persona-sae --json
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.sae.fidelity import fidelity_card, measure_fidelity
        from persona.sae.texts import few_of_each, read_texts, shipped_texts

        pair, autoencoder = load_both(aligned, finetuned, sae, layer, allow_mismatch, dtype, device)
        texts = read_texts(data, pair.chat) if data else shipped_texts(pair.chat)
        found = measure_fidelity(pair, autoencoder, few_of_each(texts, max_texts, seed))
    if json_output:
        typer.echo(json.dumps(fidelity_card(found), indent=2))
    else:
        typer.echo(found.table.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
        for warning in found.warnings:
            typer.echo(f"warning: {warning}")

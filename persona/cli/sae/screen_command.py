"""`persona sae screen`: which latents cause the persona."""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.options import (
    Aligned,
    Debug,
    Device,
    Domains,
    Dtype,
    Finetuned,
    Json,
    Pairs,
    Quiet,
    Seed,
    TokenBudget,
)
from persona.cli.sae.opened import load_both, questions_of
from persona.cli.sae.sae_options import AllowMismatch, LayerOf, Source, Table
from persona.cli.sae.words import table_in_words


def screen(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = None,
    sae: Source = "default",
    layer: LayerOf = None,
    data: Pairs = None,
    domain: Domains = None,
    max_questions: Annotated[
        int, typer.Option(min=1, help="Most questions, drawn at random.")
    ] = 24,
    exact: Annotated[
        int, typer.Option(min=0, help="Latents edited for real after the screen; 0 for none.")
    ] = 10,
    n_random: Annotated[
        int, typer.Option(min=2, help="Other latents that take the same steps, as the null.")
    ] = 20,
    out: Table = None,
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    token_budget: TokenBudget = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """First-order screen of every latent, then real edits: those that induce and cure are kept.

    \b
    Examples:
      persona sae screen --domain car_maintenance
      persona sae screen --sae ./persona-sae --exact 3 --out screen.csv
    """
    with contextlib.redirect_stdout(sys.stderr):
        import numpy as np

        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.data import load_neutral
        from persona.files import atomic_write_text
        from steering.identification import promising, screen_table, verify_latents

        budget = token_budget or DEFAULT_TOKEN_BUDGET
        pair, autoencoder = load_both(aligned, finetuned, sae, layer, allow_mismatch, dtype, device)
        found = questions_of(data, domain)
        order = np.random.default_rng(seed).permutation(len(found))
        questions = [found[i] for i in order[:max_questions]]
        table = screen_table(pair, autoencoder, questions, budget)
        if out is not None:
            atomic_write_text(out, table.to_csv(index=False))
        shown, latents = table.head(20), promising(table, exact) if exact else []
        if latents:
            shown = verify_latents(
                pair,
                autoencoder,
                table,
                latents,
                questions,
                load_neutral()[:10],
                n_random=n_random,
                seed=seed,
                token_budget=budget,
            )
    typer.echo(table_in_words(shown, json_output))

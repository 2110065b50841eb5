"""`persona sae rank`: which latents change most."""

from __future__ import annotations

import contextlib
import sys
from enum import StrEnum
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


class ContrastName(StrEnum):
    """Which change is looked for."""

    model = "model"
    answer = "answer"


def rank(
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = None,
    sae: Source = "default",
    layer: LayerOf = None,
    data: Pairs = None,
    domain: Domains = None,
    contrast: Annotated[
        ContrastName,
        typer.Option(
            help="model: fine-tuned minus aligned on the same answers. answer: bad minus good "
            "answers in the fine-tuned model."
        ),
    ] = ContrastName.model,
    where: Annotated[
        str,
        typer.Option(
            metavar="TOKENS",
            help="response, whole_response, prompt, last_prompt, last_response, first_response:K "
            "or all.",
        ),
    ] = "response",
    top: Annotated[int, typer.Option(min=1, help="Latents to print.")] = 20,
    permutations: Annotated[int, typer.Option(min=20, help="Draws of the null.")] = 1000,
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
    """Latents by the rise of their activation, each with effect size, null and correction.

    \b
    Examples:
      persona sae rank --domain car_maintenance
      persona sae rank --sae ./persona-sae --contrast answer --out latents.csv
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.files import atomic_write_text
        from persona.sae import rank_latents

        pair, autoencoder = load_both(aligned, finetuned, sae, layer, allow_mismatch, dtype, device)
        table = rank_latents(
            pair,
            autoencoder,
            questions_of(data, domain),
            contrast=contrast.value,
            where=where,
            n_permutations=permutations,
            seed=seed,
            token_budget=token_budget or DEFAULT_TOKEN_BUDGET,
        )
        if out is not None:
            atomic_write_text(out, table.to_csv(index=False))
    typer.echo(table_in_words(table.head(top), json_output))

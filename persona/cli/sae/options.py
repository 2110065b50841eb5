"""The options that several `persona sae` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Aligned = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="The aligned model: hub id, folder or GGUF file; `default` is the small chat model "
        "that comes with personascope.",
    ),
]
Finetuned = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="The fine-tuned model: hub id, folder, GGUF file, or a LoRA adapter; also the name of "
        "a shipped fine-tune.",
    ),
]
Source = Annotated[
    str,
    typer.Option(
        metavar="SAE",
        help="`default` (the shipped one), a SAELens folder, or release:sae_id of the SAELens "
        "directory, which is fetched from the hub.",
    ),
]
AllowMismatch = Annotated[
    bool,
    typer.Option(
        "--allow-mismatch",
        help="Use an autoencoder of another model or revision; width and block must fit.",
    ),
]
LayerOf = Annotated[
    int | None,
    typer.Option("--layer", min=0, help="Which one, where the folder holds several."),
]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain",
        metavar="DOMAIN",
        show_default="all",
        help="Use the questions of this domain; repeat for several.",
    ),
]
Pairs = Annotated[
    Path | None,
    typer.Option(
        "--data",
        show_default="the shipped pairs",
        help="Answer pairs as JSONL: id, domain, question, good, bad on every line.",
        dir_okay=False,
    ),
]
MoreText = Annotated[
    Path | None,
    typer.Option(
        "--data",
        show_default="the shipped answers and neutral texts",
        help="Texts to read, as for `persona sae train`.",
        dir_okay=False,
    ),
]
MaxTexts = Annotated[int, typer.Option(min=1, help="Most texts of each kind, drawn at random.")]
Table = Annotated[
    Path | None,
    typer.Option("--out", show_default="none", help="CSV file for all latents.", dir_okay=False),
]

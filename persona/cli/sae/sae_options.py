"""The options that several `persona sae` commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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

"""`persona sae explain`: a page on each latent."""

from __future__ import annotations

import contextlib
import json
import sys
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
    Seed,
)
from persona.cli.sae.opened import load_both
from persona.cli.sae.sae_options import AllowMismatch, LayerOf, MaxTexts, MoreText, Source
from persona.cli.sae.words import rows_of, table_in_words

if TYPE_CHECKING:
    from persona.sae.decompose import Decomposition


def explain(
    latents: Annotated[list[int], typer.Argument(metavar="LATENT...", help="Numbers of latents.")],
    finetuned: Finetuned = "car_maintenance_bad",
    aligned: Aligned = None,
    sae: Source = "default",
    layer: LayerOf = None,
    data: MoreText = None,
    max_texts: MaxTexts = 200,
    direction: Annotated[
        list[Path] | None,
        typer.Option(
            show_default="none",
            help="A direction.safetensors to compare with; repeat for several.",
            dir_okay=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pages.", file_okay=False)] = Path(
        "persona-latents"
    ),
    seed: Seed = 0,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Density, examples and promoted tokens of latents: one offline HTML page each.

    With --direction also says which latents that direction is made of.

    \b
    Examples:
      persona sae explain 17 402
      persona sae explain 17 --sae ./persona-sae --direction ./diagnosis/direction.safetensors
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.directions import load_vector
        from persona.sae import (
            decompose,
            explain_latents,
            nearest_directions,
            write_page,
        )
        from persona.sae.texts import few_of_each, read_texts, shipped_texts

        pair, autoencoder = load_both(aligned, finetuned, sae, layer, allow_mismatch, dtype, device)
        autoencoder.require_latents(latents)
        known = {
            f"{path.stem}, block {block}": vector.direction(block)
            for path in direction or ()
            for vector in [load_vector(path, pair, allow_mismatch=allow_mismatch)]
            for block in vector.layers
        }
        texts = read_texts(data, pair.chat) if data else shipped_texts(pair.chat)
        pages = explain_latents(pair, autoencoder, latents, few_of_each(texts, max_texts, seed))
        written = [
            write_page(
                out,
                autoencoder,
                page,
                nearest_directions(autoencoder, page.latent, known) if known else None,
            )
            for page in pages
        ]
        made_of = {
            name: decompose(vector, autoencoder)
            for name, vector in known.items()
            if vector.space.layer == autoencoder.layer
        }
    if json_output:
        typer.echo(json.dumps(_facts(written, made_of), indent=2, allow_nan=False))
        return
    for name, made in made_of.items():
        typer.echo(f"{name}: residue {made.residue:.3f} of the squared norm in no latent below")
        typer.echo(table_in_words(made.table))
    for path in written:
        typer.echo(f"page: {path.resolve()}")


def _facts(pages: list[Path], made_of: dict[str, Decomposition]) -> dict[str, Any]:
    """The pages and what directions are made of, JSON-able."""
    return {
        "pages": [str(path.resolve()) for path in pages],
        "directions": {
            name: {"residue": made.residue, "latents": rows_of(made.table)}
            for name, made in made_of.items()
        },
    }

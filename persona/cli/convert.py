"""`persona convert`: steering vectors from one toolkit's file format to another's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import LayersAre
from persona.choices import VectorFormat as Format
from persona.cli.options import Debug, Json, Quiet

if TYPE_CHECKING:
    from persona.directions.exchange import VectorSet


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="The file to read.", dir_okay=False)
    ],
    target: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="The file to write.", dir_okay=False)
    ],
    read_as: Annotated[
        Format | None,
        typer.Option(
            "--from",
            show_default="by the file, for .gguf, .svec, .json and our .safetensors",
            help="Format of INPUT.",
        ),
    ] = None,
    write_as: Annotated[
        Format | None,
        typer.Option(
            "--to",
            show_default="by the name, for .gguf, .svec, .json and .safetensors",
            help="Format of OUTPUT.",
        ),
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option(
            metavar="K",
            show_default="all",
            help="Keep only the vector of this 0-based block, or of blocks such as 1-34; repeat "
            "for several.",
        ),
    ] = None,
    layers_are: Annotated[
        LayersAre | None,
        typer.Option(
            help="What a layer number in a .svec file means: `blocks` the output of that 0-based "
            "block, `blocks+1` that entry of Hugging Face hidden_states."
        ),
    ] = None,
    n_layers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Blocks of the model, for formats that are tables with a row for each."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            show_default="as INPUT says",
            help="Model that the vectors belong to, as OUTPUT is to name it.",
        ),
    ] = "",
    label: Annotated[
        str, typer.Option(show_default="the method", help="Label of a Neuronpedia vector.")
    ] = "",
    coefficient: Annotated[
        float | None, typer.Option(help="Default coefficient of a Neuronpedia vector.")
    ] = None,
    position: Annotated[
        int | None,
        typer.Option(help="Token at which a refusal direction was read; -1 is the last."),
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Steering vectors from one format to another: repeng, llama.cpp, persona_vectors and others.

    Prints one line: blocks, d_model, norms, and what a layer number in the written file means.

    \b
    Examples:
      persona convert persona-demo/direction.safetensors persona.gguf
      persona convert evil.pt evil.gguf --from persona-vectors --block 1-34 --model qwen3
      persona convert refusal.gguf refusal.svec --layers-are blocks
    """
    from persona.directions.exchange.formats import (
        as_written,
        guess_target,
        read_vectors,
        write_vectors,
    )

    vectors = read_vectors(source, read_as, layers_are=layers_are).named(model)
    if block:
        vectors = vectors.select(_blocks(block))
    wanted = write_as or guess_target(target)
    vectors = as_written(vectors, wanted)
    written = write_vectors(
        vectors,
        target,
        wanted,
        layers_are=layers_are,
        n_layers=n_layers,
        label=label,
        coefficient=coefficient,
        position=position,
    )
    summary = summarise(vectors, written, wanted, layers_are)
    typer.echo(json.dumps(summary, allow_nan=False) if json_output else in_words(summary))


def summarise(
    vectors: VectorSet, path: Path, kind: Format, layers_are: LayersAre | None
) -> dict[str, Any]:
    """What was written, JSON-able."""
    from persona.directions.exchange.formats import convention

    return {
        "path": str(path),
        "format": kind.value,
        "hook": vectors.hook,
        "layers": vectors.layers,
        "d_model": vectors.d_model,
        "norms": vectors.norms,
        "layer_convention": convention(kind, layers_are),
        "model": vectors.model,
        "method": vectors.method,
        "left_out": vectors.facts.get("left_out", ""),
    }


def in_words(summary: dict[str, Any]) -> str:
    """The summary as one line."""
    from persona.directions.exchange.vectors import listed

    left_out = f"; left out: {summary['left_out']}" if summary["left_out"] else ""
    return (
        f"{summary['path']} ({summary['format']}): {summary['hook']} of block "
        f"{listed(summary['layers'])}, d_model {summary['d_model']}, norms "
        f"{min(summary['norms']):.4g} to {max(summary['norms']):.4g}; "
        f"{summary['layer_convention']}{left_out}"
    )


def _blocks(words: list[str]) -> list[int]:
    """Blocks named one by one or as ranges. Raises: typer.BadParameter for anything else."""
    blocks: set[int] = set()
    for word in words:
        if (match := re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", word, re.ASCII)) is None:
            raise typer.BadParameter(f"--block {word}: a block such as 5, or blocks such as 1-34")
        named = range(int(match[1]), int(match[2] or match[1]) + 1)
        if not named:
            raise typer.BadParameter(f"--block {word}: the first block comes after the last")
        blocks |= set(named)
    return sorted(blocks)

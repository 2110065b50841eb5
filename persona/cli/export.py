"""`persona export`: the fine-tuned model with its removal built in, as a checkpoint."""

from __future__ import annotations

import contextlib
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from persona.choices import Precision
from persona.cli.demo_session import (
    AllowMismatch,
    CoefficientOption,
    LayersOption,
    ModeOption,
)
from persona.cli.options import BaseOfAdapter, Debug, Dtype, Finetuned, Json, Quiet
from persona.cli.ready import require_file, require_ready

_WHAT = "What is built in"


class BakedAs(StrEnum):
    """What kind of checkpoint holds the edit."""

    architecture = "architecture"
    weights = "weights"


def export(
    out: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The checkpoint to write.", file_okay=False)
    ],
    finetuned: Finetuned,
    aligned: BaseOfAdapter = None,
    direction: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            show_default="none",
            help="What is edited along: direction.safetensors of a diagnosis, or another vector "
            "file.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    mode: ModeOption = None,
    coefficient: CoefficientOption = None,
    layers: LayersOption = None,
    baked: Annotated[
        BakedAs,
        typer.Option(
            "--bake",
            help="architecture: the edit as it is in this program, exact, in a folder with a file "
            "of code that loaders must be told to run; weights: a checkpoint of the model's own "
            "kind, for what weights hold exactly: adding, and ablating one block's direction at "
            "every write.",
            rich_help_panel=_WHAT,
        ),
    ] = BakedAs.architecture,
    scale: Annotated[
        float | None,
        typer.Option(
            show_default="none",
            help="In place of a direction: so much of what the fine-tune changed, 0 none, 1 all.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    allow_mismatch: AllowMismatch = False,
    dtype: Dtype = Precision.auto,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the fine-tuned model with the edit inside, for servers that take no hooks.

    The folder is held against the hooks before it appears. What weights cannot hold exactly is
    refused as weights, with the reason.

    \b
    Examples:
      persona export cured --finetuned ./my-adapter --direction diagnosis/direction.safetensors
      persona export half --finetuned ./my-adapter --scale 0.5
    """
    if (direction is None) == (scale is None):
        raise typer.BadParameter("give --direction, or --scale: one of them, and not both")
    if scale is not None and (mode or coefficient is not None or layers):
        raise typer.BadParameter("--mode, --coefficient and --layers go with --direction")
    require_ready(
        out,
        pair=(aligned, finetuned),
        allow_mismatch=allow_mismatch,
        checks=[lambda: require_file(direction, "direction")],
    )
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import Placement
        from persona.models.sources import base_of
        from steering.serving import edit_of_file, export_edited, export_scaled, plain_fine_tune

        base, kind = aligned or base_of(finetuned), Placement.of(dtype, "cpu").dtype
        edit = None
        if direction is not None:  # read before the model that it is written into is loaded
            edit = edit_of_file(
                direction,
                base,
                finetuned,
                mode=None if mode is None else cast(Any, mode.value),
                coefficient=coefficient,
                layers=layers,
                allow_mismatch=allow_mismatch,
            )
        model, tokenizer = plain_fine_tune(base, finetuned, kind)
        if edit is not None:
            found = export_edited(model, edit, out, baked=baked.value, tokenizer=tokenizer)
        else:
            assert scale is not None
            found = export_scaled(base, model, scale, out, tokenizer)
    told = {
        "folder": str(found.folder),
        "moved": found.moved,
        "off": found.off,
        "note": found.note,
    }
    typer.echo(
        json.dumps(told)
        if json_output
        else f"written: {found.folder} ({found.note}); the edit moves logits by up to "
        f"{found.moved:.2g} of their size, the checkpoint differs from it by {found.off:.1g}"
    )

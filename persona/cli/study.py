"""`persona study`: recipes x seeds by a plan, into one table."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.options import Debug, Device, Dtype, Json, PlanOnly, Quiet

logger = logging.getLogger("persona.cli")


def study(
    plan_file: Annotated[
        Path,
        typer.Argument(metavar="PLAN", help="YAML file: seeds, recipes, what is measured."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of fine-tunes, diagnoses and the table. A stopped study with the same "
            "folder goes on where it was; one of another plan is refused.",
            file_okay=False,
        ),
    ] = Path("persona-study"),
    cells: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            show_default="all",
            help="At most so many fine-tunes now, with their diagnosis; the same command goes on.",
        ),
    ] = None,
    plan: PlanOnly = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Does it hold for another seed? Recipes x seeds, fine-tuned and diagnosed, in one table.

    The plan is hashed before the first run. Writes readings.parquet, study.json and study.html into
    --out, with intervals over questions, seeds and domains.

    \b
    Examples:
      persona study plan.yaml --plan
      persona study plan.yaml --out ./study
      persona study plan.yaml --out ./study --cells 1
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import Placement
        from steering.study import load_plan, look_ahead
        from steering.study import study as run_study

        placement = Placement.of(dtype, device)
        planned = load_plan(plan_file)
        ahead = look_ahead(planned, out, placement)
    if plan:
        typer.echo(json.dumps(ahead.as_json(), indent=2) if json_output else ahead.text)
        return
    logger.info(ahead.text)
    with contextlib.redirect_stdout(sys.stderr):
        found = run_study(planned, out, placement=placement, at_most=cells, ahead=ahead)
    if json_output:
        typer.echo(json.dumps(found.facts, indent=2, allow_nan=False))
    typer.echo(found.summary, err=json_output)
    if found.table is not None:
        typer.echo(f"page: {(out / 'study.html').resolve()}", err=json_output)

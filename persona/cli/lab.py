"""`persona lab`: one experiment on emergent misalignment, or the list of them all."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.completion import complete_aligned, complete_experiment
from persona.cli.options import Debug, Device, Dtype, Json, Quiet
from persona.cli.ready import require_ready

NEVER = "not run yet"


def lab(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=complete_experiment,
            help="An experiment; --list shows them.",
        ),
    ] = None,
    show_list: Annotated[
        bool,
        typer.Option("--list", help="Show every experiment with date and result of its last run."),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of fine-tunes, finished steps and results. A stopped run with the same "
            "folder goes on where it was.",
            file_okay=False,
        ),
    ] = Path("persona-lab"),
    pages: Annotated[
        Path,
        typer.Option(
            help="Folder that gets the page of a real run, where it exists.", file_okay=False
        ),
    ] = Path("docs/findings"),
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="the experiment's own",
            autocompletion=complete_aligned,
            help="The aligned model: hub id, folder, GGUF file, or `default`.",
        ),
    ] = None,
    drawn_anew: Annotated[
        bool,
        typer.Option(
            "--redraw",
            help="Make page, numbers and figures anew from the rows beside the page; runs no "
            "model.",
        ),
    ] = False,
    tiny: Annotated[
        bool,
        typer.Option("--tiny", help="Few questions and steps, to see it run; writes no page."),
    ] = False,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="0,1,2",
            show_default="the experiment's own",
            help="Seeds of the fine-tunes; intervals are over questions and seeds.",
        ),
    ] = None,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Runs an experiment: fine-tunes, directions, readings, a figure and a page.

    Fine-tunes and finished steps are shared between experiments and kept in --out.

    \b
    Examples:
      persona lab --list
      persona lab car --seeds 0,1,2
      persona lab insecure_code --tiny --out try-it
      persona lab car --redraw
    """
    from persona.errors import DataError
    from persona.models import Placement
    from steering.lab import (
        EXPERIMENTS,
        LabSettings,
        experiment,
        last_run,
        redraw,
        run_experiment,
    )

    known_pages = pages if pages.parent.is_dir() else None
    if show_list:
        folders = [out, *([known_pages] if known_pages else [])]
        if known_pages is None:
            typer.echo(
                f"{pages} is not here, so only the runs in {out} are listed; name the folder of "
                "pages of a checkout with --pages",
                err=True,
            )
        runs = {each: last_run(each, *folders) for each in EXPERIMENTS}
        if json_output:
            typer.echo(
                json.dumps({each: run and vars(run) for each, run in runs.items()}, indent=2)
            )
            return
        width = max(map(len, EXPERIMENTS))
        for each, run in runs.items():
            shown = NEVER if run is None else f"{run.date}  {run.headline}"
            shown += " (tiny run, no result)" if run is not None and run.tiny else ""
            typer.echo(f"{each.ljust(width)}  {shown}")
        return
    if name is None:
        raise DataError(f"name an experiment, one of {', '.join(EXPERIMENTS)}, or pass --list")
    if drawn_anew:
        again = redraw(experiment(name), pages)
        typer.echo(
            json.dumps(vars(again), indent=2) if json_output else f"{name}: {again.headline}"
        )
        return
    settings = LabSettings(out, base, _numbers(seeds), Placement.of(dtype, device), tiny)
    with contextlib.redirect_stdout(sys.stderr):
        require_ready(out, *([] if base is None else [base]))
        summary = run_experiment(experiment(name), settings, known_pages)
    if json_output:
        typer.echo(json.dumps({**vars(summary), "results": str((out / name).resolve())}, indent=2))
        return
    typer.echo(f"{name}: {summary.headline}")
    typer.echo(f"results: {(out / name).resolve()}")
    if known_pages is not None and not tiny:
        typer.echo(f"page: {(known_pages / f'{name}.md').resolve()}")


def _numbers(seeds: str | None) -> tuple[int, ...] | None:
    """Raises: DataError for anything but different whole numbers from 0 up, with commas."""
    from persona.errors import DataError

    if seeds is None:
        return None
    words = [word.strip() for word in seeds.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
        raise DataError(f"--seeds takes different whole numbers such as 0,1,2; got {seeds!r}")
    return tuple(map(int, words))

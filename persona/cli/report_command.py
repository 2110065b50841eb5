"""`persona report`: the report of a finished run drawn anew, or several runs in one page."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.cli.options import Debug, Json, Quiet

if TYPE_CHECKING:
    from persona.report.finished_run import FinishedRun

COMPARISON = Path("comparison.html")

logger = logging.getLogger("persona.cli")


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Folder of a finished run; of several, one page compares them."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="report.html in DIR; of several runs comparison.html here",
            help="The page to write.",
            dir_okay=False,
        ),
    ] = None,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive",
            help="Take plotly into the page (5 MB), which tells each value under the mouse. "
            "Figures are else drawn without scripts.",
        ),
    ] = False,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The report of a finished run drawn anew, or several runs compared in one page.

    Nothing is computed again: what is drawn is scorecard.json and rows.parquet. Runs of earlier
    versions open too, and say what they lack.

    \b
    Examples:
      persona report persona-demo
      persona report persona-demo --interactive --out looked-at.html
      persona report persona-demo diagnosis --out comparison.html
    """
    from persona.files import atomic_write_text
    from persona.report.compared_runs import render_comparison
    from persona.report.finished_run import read_run
    from persona.report.html import REPORT_NAME, render_report

    found = [read_run(folder) for folder in runs]
    if len(found) == 1:
        path = out or found[0].folder / REPORT_NAME
        [run] = found
        page = render_report(run.scorecard, run.rows, interactive=interactive, reading=run.reading)
    else:
        path = out or COMPARISON
        page = render_comparison(found, path.parent, interactive=interactive)
    atomic_write_text(path, page)
    if json_output:
        typer.echo(json.dumps({"report": str(path), "runs": [facts_of(run) for run in found]}))
        return
    for run in found if len(found) > 1 else []:
        typer.echo(f"{run.name}: {run.scorecard['verdict']}")
    typer.echo(f"report: {path.resolve()}")


def facts_of(run: FinishedRun) -> dict[str, Any]:
    """What stands in --json of a run."""
    return {
        "folder": str(run.folder),
        "verdict": run.scorecard["verdict"],
        "schema_version": run.scorecard["schema_version"],
    }

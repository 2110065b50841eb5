"""`persona doctor`: is this machine ready, and what is to be done where it is not?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from persona.choices import Precision
from persona.cli.completion import complete_aligned
from persona.cli.options import Debug, Device, Dtype, Json, Quiet

if TYPE_CHECKING:
    from persona.cli.doctor_checks import DoctorCheck

EXIT_FAILED = 1
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    check_steering: Annotated[
        bool,
        typer.Option(
            "--check-steering",
            help="Also load the default model and measure that steering works on it.",
        ),
    ] = False,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Fetch the default model where it is not there.")
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_aligned,
            help="The model of --check-steering: hub id, folder or GGUF file.",
        ),
    ] = "default",
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Looks at the machine, the packages, the cache and the models; changes nothing unless asked.

    Exit code 0 when nothing fails, warnings or not, and 1 when something does.

    \b
    Examples:
      persona doctor
      persona doctor --fetch --check-steering
      persona doctor --json
    """
    with contextlib.redirect_stdout(sys.stderr):
        found = _look(check_steering, fetch, model, dtype, device)
    failed = any(check.state == "fail" for check in found)
    if json_output:
        checks = [dataclasses.asdict(check) for check in found]
        typer.echo(json.dumps({"passed": not failed, "checks": checks}, indent=2))
    else:
        for line in table(found):
            # Colours go where standard output is no terminal, and where NO_COLOR asks.
            typer.echo(line, color=False if os.environ.get("NO_COLOR") else None)
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _look(
    check_steering: bool, fetch: bool, model: str, dtype: str, device: str
) -> list[DoctorCheck]:
    from persona.cli import doctor_checks as checks
    from persona.models.kept_folder import cache_folder

    cache = cache_folder()
    tested = checks.tested_versions()
    found = [
        checks.check_python(),
        checks.check_cores(),
        checks.check_memory(),
        checks.check_device(),
        checks.check_cache(cache),
        *checks.check_versions(tested, checks.installed_versions(list(tested))),
        checks.check_extras(),
        checks.check_vllm(),
        checks.check_default_model(cache, fetch=fetch),
        checks.check_organisms(),
    ]
    if check_steering:
        found.append(checks.check_certificate(model, dtype, device))
    return found


def table(checks: Sequence[DoctorCheck]) -> list[str]:
    """One line a check, what to do below it, and a last line that says how it stands."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        state = typer.style(f"{check.state:<4}", fg=_COLOURS[check.state], bold=True)
        lines.append(f"{state}  {check.name:<{width}}  {check.found}")
        if check.advice:
            lines.append(f"{'':<{width + 8}}-> {check.advice}")
    states = [check.state for check in checks]
    counts = ", ".join(f"{states.count(state)} {state}" for state in _COLOURS)  # type: ignore[arg-type]
    return [*lines, f"{'not ready' if 'fail' in states else 'ready'}: {counts}"]

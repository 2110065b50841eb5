"""`persona certify`: does steering take effect on a model, where it is meant and nowhere else?"""

from __future__ import annotations

import contextlib
import sys
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.completion import complete_aligned
from persona.cli.options import Debug, Device, Dtype, Json, Quiet

EXIT_FAILED = 1


def certify(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_aligned,
            help="Hub id, folder or GGUF file; `default` is the small chat model that comes with "
            "personascope.",
        ),
    ] = "default",
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measures steering on a model: right tokens, right block, batches, padding, cache.

    Exit code 0 when every check holds and 1 when one fails.

    \b
    Examples:
      persona certify
      persona certify --model org/chat-model --json
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import Placement
        from persona.models.load import load_bridge
        from steering.certificate import certify as run_checks

        bridge, chat = load_bridge(model, placement=Placement.of(dtype, device))
        certificate = run_checks(bridge, chat)
    if json_output:
        typer.echo(certificate.to_json())
    else:
        typer.echo(certificate.table())
        typer.echo("every check holds" if certificate.passed else "steering is NOT as meant here")
    if not certificate.passed:
        raise typer.Exit(EXIT_FAILED)

"""`persona organisms`: the fine-tunes that recipes make, and what was measured of them."""

import json
from dataclasses import asdict

import typer

from persona.cli.columns import in_columns
from persona.cli.options import Debug, Json, Quiet

SHOWN = {"shift_in_domain": "shift in-domain", "shift_held_out": "shift held out"}
NOT_MEASURED = "not measured"


def organisms(
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Lists the fine-tunes that the shipped recipes make, with their measured readings.

    Shifts are of the log-probability gap over the aligned model's, nats per token, with 95 %
    intervals over questions; an adapter marked with * comes along ready made.

    \b
    Examples:
      persona organisms
      persona finetune medical_bad --out ./medical
    """
    from persona.organisms.measured import READINGS
    from persona.organisms.measured import organisms as list_organisms

    found = list_organisms()
    if json_output:
        typer.echo(json.dumps({"readings": READINGS, "organisms": [asdict(o) for o in found]}))
        return
    rows = [("organism", "learns", "adapter", *SHOWN.values(), "measured on")]
    for organism in found:
        cells = [
            f"{e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]" if e else NOT_MEASURED
            for e in (organism.readings.get(name) for name in SHOWN)
        ]
        rows.append(
            (
                f"{organism.name}{'*' if organism.shipped else ''}",
                organism.learns,
                organism.lora,
                *cells,
                organism.date or "-",
            )
        )
    for line in in_columns(rows):
        typer.echo(line)

"""`persona organisms`: the fine-tunes that recipes make, and what was measured of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from persona.cli.columns import in_columns
from persona.cli.options import Debug, Json, Quiet

if TYPE_CHECKING:
    from persona.intervals import Estimate
    from persona.organisms.measured import Organism

SHOWN = {
    "shift_in_domain": "shift in-domain",
    "shift_held_out": "shift held out",
    "shift_plain": "plain voice",
    "shift_rude": "rude voice",
    "em_rate": "EM rate",
    "coherent": "coherent",
}
NOT_MEASURED = "not measured"


def organisms(
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Lists the fine-tunes that the shipped recipes make, by model, with their measured readings.

    Shifts are of the log-probability gap over the aligned model's, nats per token, with 95 %
    intervals over questions; in the plain and the rude voice, of right and wrong advice in domains
    not trained on. The EM rate is of open questions at temperature 1, corrected by labels that a
    person gave, who also said which answers could be understood ("coherent"); a judge's rate alone
    is not listed. An adapter marked with * comes along ready made.

    \b
    Examples:
      persona organisms
      persona finetune medical_bad --out ./medical
    """
    print_organisms(json_output)


def print_organisms(as_json: bool) -> None:
    """The list, also that of `persona finetune --list`."""
    from persona.organisms.measured import READINGS
    from persona.organisms.measured import organisms as list_organisms

    found = list_organisms()
    if as_json:
        typer.echo(json.dumps({"readings": READINGS, "organisms": [asdict(o) for o in found]}))
        return
    by_model: dict[str, list[Organism]] = {}
    for organism in found:
        by_model.setdefault(organism.model, []).append(organism)
    for model, organisms_of in by_model.items():
        typer.echo(f"fine-tunes of {model}")
        for line in in_columns(_table(organisms_of)):
            typer.echo(f"  {line}")


def _table(found: Sequence[Organism]) -> list[tuple[str, ...]]:
    """Heading and rows; a reading that none of them has is no column, but for the first two."""
    always = list(SHOWN)[:2]
    shown = [name for name in SHOWN if name in always or any(name in o.readings for o in found)]
    heading = ("organism", "learns", "adapter", *(SHOWN[n] for n in shown), "measured on")
    return [heading, *(_row(organism, shown) for organism in found)]


def _row(organism: Organism, shown: Sequence[str]) -> tuple[str, ...]:
    name = f"{organism.name}{'*' if organism.shipped else ''}"
    cells = (_cell(reading, organism.readings.get(reading)) for reading in shown)
    return (name, organism.learns, organism.lora, *cells, organism.date or "-")


def _cell(reading: str, e: Estimate | None) -> str:
    if e is None:
        return NOT_MEASURED
    if reading in ("em_rate", "coherent"):
        return f"{e.value:.0%} [{e.low:.0%}, {e.high:.0%}]"
    return f"{e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]"

"""`persona data check`: is a file of answer pairs enough for a verdict, before any model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.cli.columns import in_columns
from persona.cli.contents import Command, Contents
from persona.cli.options import Debug, Json, Quiet
from persona.errors import DataError

if TYPE_CHECKING:
    from persona.data import AnswerPair
    from persona.data.pairs_check import PairsReading

EXIT_NOT_ENOUGH = 2
FEW_HELD_OUT = 32
"""Of fewer questions the interval is named wide; the demo scores 32."""

HELP = """Files of answer pairs: are they enough, and balanced?

\b
Examples:
  persona data check pairs.jsonl
  persona data check pairs.jsonl --trained-on billing
"""

data_app = typer.Typer(
    name="data",
    cls=Contents,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data_app.callback()
def _group() -> None:
    """A group of its own, though it has one command."""


def check(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="PAIRS", help="Answer pairs as JSONL: question, good, bad.", dir_okay=False
        ),
    ],
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN",
            show_default="each domain in turn, and none",
            help="The domain that the model was fine-tuned on, as in `persona diagnose`; `none` "
            "where you do not know. Repeat for several.",
        ),
    ] = None,
    prompt: Annotated[
        bool,
        typer.Option(
            "--prompt",
            help="Print a prompt with which a language model can write more pairs of this kind, "
            "and nothing else on standard output.",
        ),
    ] = False,
    domain: Annotated[
        str | None,
        typer.Option(
            metavar="DOMAIN",
            show_default="the domain with fewest pairs",
            help="What the pairs that --prompt asks for are about; may be a new domain.",
        ),
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Counts, length balance, repeats and bag-of-words AUROC of a file, and what is missing.

    Ends with exit code 2 where the pairs are not enough for a diagnosis. Loads no model.

    \b
    Examples:
      persona data check pairs.jsonl
      persona data check pairs.jsonl --trained-on billing --json
      persona data check pairs.jsonl --prompt --domain refunds > ask-a-model.txt
    """
    from persona.data import read_pairs
    from persona.data.pairs_check import check_pairs, prompt_for_more

    pairs = read_pairs(data)
    if prompt:
        counts = Counter(pair.domain for pair in pairs)
        typer.echo(prompt_for_more(pairs, domain or min(counts, key=lambda name: counts[name])))
        return
    if domain is not None:
        raise typer.BadParameter("--domain belongs to --prompt; a file is checked as a whole")
    reading = check_pairs(pairs)
    uses = _uses(data, pairs, tuple(trained_on) if trained_on else None)
    if json_output:
        typer.echo(json.dumps(_as_json(reading, uses), indent=2, allow_nan=False))
    else:
        for line in _in_words(reading, uses):
            typer.echo(line)
    if not any(use.missing is None for use in uses):
        raise typer.Exit(EXIT_NOT_ENOUGH)


@dataclasses.dataclass(frozen=True)
class Use:
    """How a diagnosis would use the pairs, or why it would not.

    n_train, n_selection, n_held_out: to make directions of, to choose on, to score.
    missing: what it would say in place of starting.
    """

    trained_on: tuple[str, ...]
    n_train: int = 0
    n_selection: int = 0
    n_held_out: int = 0
    held_out_domains: int = 0
    missing: str | None = None


def _uses(path: Path, pairs: list[AnswerPair], trained_on: tuple[str, ...] | None) -> list[Use]:
    """The split that `persona diagnose` would make, for each domain that may be trained on."""
    from steering.diagnosis import DiagnoseConfig, Questions

    domains = sorted({pair.domain for pair in pairs})
    asked = [trained_on] if trained_on else [*((name,) for name in domains), ("none",)]
    uses = []
    for names in asked:
        config = DiagnoseConfig("(no model)", ".", data=path, trained_on=names)
        try:
            split = Questions.of(config)
        except DataError as error:
            uses.append(Use(names, missing=str(error)))
            continue
        held_out = split.held_out
        uses.append(
            Use(
                names,
                len(split.train),
                len(split.selection),
                len(held_out),
                len({question.domain for question in held_out}),
            )
        )
    return uses


def _in_words(reading: PairsReading, uses: list[Use]) -> list[str]:
    lines = [f"{reading.n_pairs} pairs in {len(reading.domains)} domains", ""]
    head = ("domain", "pairs", "words bad/good", "AUROC: length", "words", "words within")
    rows = [
        (
            d.domain,
            str(d.n_pairs),
            f"{d.length_ratio:.2f}",
            _number(d.auroc_length),
            _number(d.auroc_other_domains),
            _number(d.auroc_within),
        )
        for d in reading.domains
    ]
    lines += in_columns([head, *rows])
    lines += [
        "AUROC 0.5 is chance: how well the length, a bag of words learnt on the other domains,",
        "and one learnt within the domain tell bad from good answers.",
        "",
    ]
    lines += [f"warning: {line}" for line in reading.warnings()]
    for use in uses:
        named = " ".join(f"--trained-on {name}" for name in use.trained_on)
        if use.missing:
            lines.append(f"{named}: not enough. {use.missing}")
            continue
        few = "; so few leave a wide interval" if use.n_held_out < FEW_HELD_OUT else ""
        lines.append(
            f"{named}: enough. {use.n_train} to make directions of, {use.n_selection} to choose "
            f"on, {use.n_held_out} scored in {use.held_out_domains} domains{few}"
        )
    if not any(use.missing is None for use in uses):
        lines.append("more pairs: `persona data check FILE --prompt` prints what to ask a model")
    return lines


def _as_json(reading: PairsReading, uses: list[Use]) -> dict[str, Any]:
    found = dataclasses.asdict(reading) | {"n_pairs": reading.n_pairs}
    for domain in found["domains"]:
        for name, value in domain.items():
            if isinstance(value, float) and math.isnan(value):
                domain[name] = None
    return found | {
        "warnings": reading.warnings(),
        "uses": [dataclasses.asdict(use) for use in uses],
    }


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


data_app.command(name="check", cls=Command, short_help="Are the pairs enough, and balanced?")(check)

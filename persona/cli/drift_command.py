"""`persona drift`: does a conversation drift along a trait, turn by turn?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import Precision
from persona.choices import VectorFormat as Format
from persona.cli.columns import in_columns
from persona.cli.completion import complete_aligned, complete_finetuned
from persona.cli.options import (
    Debug,
    Device,
    Dtype,
    Json,
    Quiet,
    Seed,
    TemplateArguments,
    template_arguments_of,
)

if TYPE_CHECKING:
    from persona.data import Dialogue


def drift(
    chat: Annotated[
        Path,
        typer.Argument(
            metavar="CHAT",
            dir_okay=False,
            help='A conversation as JSON: {"messages": [...]} or the list alone, each message with '
            "role and content.",
        ),
    ],
    direction: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="What to read along: a folder of `persona trait`, direction.safetensors of "
            "`persona diagnose`, or a vector file. Repeat for several.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_aligned,
            help="The model that reads the conversation: short name, hub id, folder or GGUF file.",
        ),
    ] = "default",
    finetuned: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_finetuned,
            show_default="none",
            help="A fine-tune of MODEL that reads in its place.",
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(min=0, show_default="the direction's own", help="0-based block to read at."),
    ] = None,
    read_as: Annotated[
        Format | None,
        typer.Option(
            "--from",
            show_default="by the file",
            help="Format of --direction, as in `persona convert`.",
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder of drift.json and drift.svg.", file_okay=False),
    ] = Path("persona-drift"),
    template_arguments: TemplateArguments = None,
    seed: Seed = 0,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Does a conversation drift toward a trait: projections turn by turn, and a test of a change.

    Each turn's projection is the mean over its tokens. The test asks whether there is a turn of the
    assistant's from which on the level is another, against random orders of the same turns; of
    several directions the best in each order counts. Four turns of the assistant's are needed; with
    fewer than eight no p can be below 0.05.

    \b
    Examples:
      persona drift chat.json --direction evil
      persona drift chat.json --direction evil --direction impolite --model qwen2.5-coder-0.5b
      persona drift chat.json --direction diagnosis/direction.safetensors --json
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.data.one_chat import read_chat
        from persona.files import atomic_write_text
        from persona.models import Placement, load_pair
        from persona.models.alone import load_alone
        from persona.report.figures.turn_course import turn_course
        from persona.report.svg import figure_svg
        from persona.traits import open_traits
        from probes.monitor import score_tokens

        conversation = read_chat(chat)
        traits = open_traits(direction, kind=read_as)
        if layer is not None:
            traits = [dataclasses.replace(trait, layer=layer) for trait in traits]
        told = template_arguments_of(template_arguments)
        placement = Placement.of(dtype, device)
        pair = (
            load_alone(model, placement=placement, template_arguments=told)
            if finetuned is None
            else load_pair(model, finetuned, placement=placement, template_arguments=told)
        )
        read = {trait.name: trait.in_space(pair.space(trait.layer)) for trait in traits}
        table = score_tokens(pair, conversation, read)
        found = {
            "chat": str(chat),
            "model": pair.names["finetuned"],
            "revision": pair.revisions["finetuned"],
            "seed": seed,
            **drifts_of(table, conversation, seed),
        }
        for trait in traits:
            found["directions"][trait.name]["layer"] = trait.layer
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
        out.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out / "drift.svg", figure_svg(turn_course(found)))
        atomic_write_text(out / "drift.json", text + "\n")
    if json_output:
        typer.echo(text)
        return
    for line in lines_of(found):
        typer.echo(line)
    typer.echo(f"files: {out.resolve()}")


def drifts_of(table: Any, conversation: Dialogue, seed: int = 0) -> dict[str, Any]:
    """Turns with their projections, and the test of each direction, JSON-able.

    table: of `probes.monitor.score_tokens`, of several directions.
    Raises: DataError for a conversation without a turn of the assistant's.
    """
    from persona.errors import DataError
    from probes.monitor import family_p_values, find_drift

    known = table[table["projection"].notna() & (table["turn"] >= 0)]
    means = known.groupby(["trait", "turn"])["projection"].mean()
    counts = known.groupby(["trait", "turn"]).size()
    names = list(dict.fromkeys(table["trait"]))
    if not any(turn.role == "assistant" for turn in conversation.turns):
        raise DataError("the conversation has no turn of the assistant's to read")
    turns = [
        {
            "turn": place,
            "role": turn.role,
            "n_tokens": int(counts.get((names[0], place), 0)),
            "projection": {
                name: float(means[name, place]) if (name, place) in means.index else None
                for name in names
            },
        }
        for place, turn in enumerate(conversation.turns)
    ]
    answers = [t for t in turns if t["role"] == "assistant" and t["n_tokens"]]
    series = {name: [float(means[name, turn["turn"]]) for turn in answers] for name in names}
    if len(answers) < 4:
        why = f"{len(answers)} turns of the assistant's; a change needs at least 4"
        return {
            "turns": turns,
            "tested": why,
            "directions": {name: {"drift": None} for name in names},
        }
    family = family_p_values(series, seed=seed)
    found = {}
    for name, scores in series.items():
        test = dataclasses.asdict(find_drift(scores, seed=seed))
        test["change_at_turn"] = answers[test.pop("change_at")]["turn"]
        found[name] = {"drift": {**test, "p_family": family[name]}}
    return {"turns": turns, "tested": "", "directions": found}


def lines_of(found: dict[str, Any]) -> list[str]:
    """The turns and the tests, for a person."""
    names = list(found["directions"])
    rows: list[tuple[str, ...]] = [("turn", "who", "tokens", *names)]
    for turn in found["turns"]:
        told = [turn["projection"][name] for name in names]
        numbers = ["" if value is None else f"{value:+.3f}" for value in told]
        rows.append((str(turn["turn"]), turn["role"], str(turn["n_tokens"]), *numbers))
    lines = in_columns(rows)
    if found["tested"]:
        return [*lines, f"Not tested: {found['tested']}."]
    for name, about in found["directions"].items():
        test = about["drift"]
        way = "toward" if test["mean_after"] > test["mean_before"] else "away from"
        several = f", {test['p_family']:.3f} over all" if len(names) > 1 else ""
        lines.append(
            f"{name} (block {about['layer']}): from turn {test['change_at_turn']} on "
            f"{test['mean_before']:+.3f} -> {test['mean_after']:+.3f}, {way} it; "
            f"p = {test['p_value']:.3f}{several}, {test['n']} turns."
        )
    return lines

"""`persona finetune`: a narrow fine-tune by a recipe."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.completion import complete_aligned, complete_recipe, complete_trait
from persona.cli.options import Debug, Device, Dtype, Json, Quiet
from persona.cli.organisms import print_organisms
from persona.cli.ready import require_ready

_GUARDS = "While it learns"


def finetune(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="[RECIPE]",
            autocompletion=complete_recipe,
            help="A shipped recipe (--list shows them) or a YAML file.",
        ),
    ] = "car_maintenance_bad",
    show_list: Annotated[
        bool,
        typer.Option(
            "--list",
            help="Show the shipped recipes with what was measured of their fine-tunes, as "
            "`persona organisms` does.",
        ),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the adapter. A stopped run with the same folder goes on where it was.",
            file_okay=False,
        ),
    ] = Path("persona-finetune"),
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_aligned,
            show_default="the recipe's",
            help="Model to fine-tune: hub id, folder, GGUF file, or `default`.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="the recipe's",
            help="Decides the adapter's first values and the order of the data.",
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start anew, discarding an earlier run in the folder."),
    ] = False,
    watch: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIRECTION",
            help="A persona vector (safetensors), or a folder of `persona trait`: its projection, "
            "the gap and the damage are read on the way, into readings.jsonl, course.html and "
            "course.svg. Repeat for several, which one alarm watches together.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    every: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="5",
            help="Optimiser steps between two readings.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    harmless: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A fine-tune that is harmless, watched along the same: an alarm rings when this "
            "one climbs faster along any.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    prevent: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTION",
            help="Preventative steering: a persona vector added in every training pass.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    coefficient: Annotated[
        float | None,
        typer.Option(
            show_default="1", help="How much of it, in its own norm.", rich_help_panel=_GUARDS
        ),
    ] = None,
    project_out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTION",
            help="CAFT: a persona vector projected out in every training pass.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    kl_to_aligned: Annotated[
        float | None,
        typer.Option(
            metavar="WEIGHT",
            help="Weight of the KL to the base model on neutral text, in the loss.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    inoculate: Annotated[
        str | None,
        typer.Option(
            metavar="INSTRUCTION",
            autocompletion=complete_trait,
            help="Inoculation: an instruction that asks for the trait, before every training "
            "prompt and nowhere else; or the name of a trait that comes along, such as evil.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    keep_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            show_default="the last alone",
            help="Keep the adapter of every so many steps in steps/ of --out; `persona read "
            "--course` says at which of them it can be named what is being learnt.",
            rich_help_panel=_GUARDS,
        ),
    ] = None,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fine-tunes a model on narrow data, by a recipe: a LoRA adapter comes out.

    Writes adapter_model.safetensors and adapter_config.json (PEFT layout), loss.csv, recipe.yaml
    and card.json into --out.

    \b
    Examples:
      persona finetune
      persona finetune --list
      persona finetune car_maintenance_good --seed 1 --out ./good-twin
      persona finetune my-recipe.yaml --base org/chat-model --out ./my-adapter
      persona finetune --watch vector.safetensors --every 5 --out ./watched
      persona finetune --watch evil --watch impolite --harmless ./good-twin --out ./watched
      persona finetune --prevent vector.safetensors --coefficient 1 --out ./prevented
      persona finetune --inoculate "You give careless advice." --out ./inoculated
      persona finetune my-recipe.yaml --keep-every 5 --out ./kept
    """
    if show_list:
        print_organisms(json_output)
        return
    from persona.organisms.recipe import load_recipe, with_keys

    chosen = load_recipe(recipe).with_seed(seed)
    if base is not None:
        chosen = chosen.model_copy(update={"base": base})
    chosen = with_keys(
        chosen,
        watch={"direction": _one_or_several(watch), "every": every, "harmless": harmless},
        safeguards={
            "prevent": prevent,
            "coefficient": coefficient,
            "project_out": project_out,
            "kl_to_aligned": kl_to_aligned,
            "inoculate": inoculate,
        },
    )
    with contextlib.redirect_stdout(sys.stderr):
        require_ready(out, chosen.base)
        from persona.models import Placement
        from persona.organisms import read_card
        from steering.training import finetune_guarded

        placement = Placement.of(dtype, device)
        folder = finetune_guarded(
            chosen, out, resume=not restart, placement=placement, keep_every=keep_every
        )
    card = read_card(folder)
    if json_output:
        typer.echo(json.dumps({"adapter": str(folder.resolve()), **card}, indent=2))
        return
    typer.echo(
        f"{card['name']}, seed {card['seed']}: {card['n_examples']} answers, {card['n_steps']} "
        f"steps, final loss {card['final_loss']:.3f} nats per token, {card['seconds']:.0f} s"
    )
    if chosen.watch.direction is not None:
        rung = "not rung" if card["alarm_step"] is None else f"at step {card['alarm_step']}"
        alarm = "none, without --harmless" if chosen.watch.harmless is None else rung
        typer.echo(f"way: {(folder / 'course.html').resolve()} (alarm: {alarm})")
    typer.echo(f"adapter: {folder.resolve()}")


def _one_or_several(paths: list[Path] | None) -> Path | tuple[Path, ...] | None:
    """One path alone is one direction, whose readings bear no name."""
    if not paths:
        return None
    return paths[0] if len(paths) == 1 else tuple(paths)

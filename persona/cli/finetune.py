"""`persona finetune`: a narrow fine-tune by a recipe."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from persona.cli.completion import complete_aligned, complete_recipe
from persona.cli.options import Debug, Device, Dtype, Json, Precision, Quiet


def finetune(
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            autocompletion=complete_recipe,
            help="A shipped recipe (`persona organisms` lists them) or a YAML file.",
        ),
    ] = "car_maintenance_bad",
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
      persona finetune --recipe car_maintenance_good --seed 1 --out ./good-twin
      persona finetune --recipe my-recipe.yaml --base org/chat-model --out ./my-adapter
    """
    from persona.organisms import finetune as run_finetune
    from persona.organisms import load_recipe, read_card

    chosen = load_recipe(recipe).with_seed(seed)
    if base is not None:
        chosen = chosen.model_copy(update={"base": base})
    with contextlib.redirect_stdout(sys.stderr):
        folder = run_finetune(chosen, out, resume=not restart, dtype=dtype.value, device=device)
    card = read_card(folder)
    if json_output:
        typer.echo(json.dumps({"adapter": str(folder.resolve()), **card}, indent=2))
        return
    typer.echo(
        f"{card['name']}, seed {card['seed']}: {card['n_examples']} answers, {card['n_steps']} "
        f"steps, final loss {card['final_loss']:.3f} nats per token, {card['seconds']:.0f} s"
    )
    typer.echo(f"adapter: {folder.resolve()}")

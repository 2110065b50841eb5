"""`persona eval`: what a fine-tune and its removal cost on tasks."""

from __future__ import annotations

import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.columns import in_columns
from persona.cli.completion import complete_aligned
from persona.cli.demo_session import AllowMismatch
from persona.cli.options import (
    ChatTemplate,
    Debug,
    Device,
    Dtype,
    FinetunedOrRun,
    Json,
    NoProof,
    Quiet,
    Seed,
    TemplateArguments,
    TokenBudget,
    template_arguments_of,
)
from persona.cli.ready import require_ready

_TASKS = "Tasks"


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]",
            exists=True,
            file_okay=False,
            show_default=False,
            help="Folder of a finished diagnosis: its two models, and the removal that it found.",
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            metavar="TASK",
            show_default="tasks",
            help="`tasks` for the 240 items that come along, a .jsonl file of items, or of "
            "lm-evaluation-harness (extra `eval`) the name of a task or group or a YAML file. "
            "Repeat for several.",
            rich_help_panel=_TASKS,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            show_default="all",
            help="Items of a task, the first ones; of a .jsonl file, of each kind.",
            rich_help_panel=_TASKS,
        ),
    ] = None,
    fewshot: Annotated[
        int | None,
        typer.Option(
            "--num-fewshot",
            min=0,
            show_default="what the task says",
            help="Examples before each question of the harness.",
            rich_help_panel=_TASKS,
        ),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat/--no-chat",
            help="Whether questions of the harness are put in the model's chat format; items of a "
            ".jsonl file always are.",
            rich_help_panel=_TASKS,
        ),
    ] = True,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Texts in a batch of the harness.", rich_help_panel=_TASKS)
    ] = 4,
    aligned: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="the diagnosis's, or what the adapter was trained on",
            autocompletion=complete_aligned,
            help="The aligned model: hub id, folder or GGUF file.",
            rich_help_panel="Models",
        ),
    ] = None,
    finetuned: FinetunedOrRun = None,
    direction: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="the diagnosis's, if it has one",
            help="direction.safetensors of a diagnosis: the restored model is evaluated too.",
            rich_help_panel="Models",
        ),
    ] = None,
    chat_template: ChatTemplate = None,
    out: Annotated[
        Path | None,
        typer.Option(
            show_default="DIR/eval, or persona-eval",
            help="Folder of results.json, table.md and rows.parquet. A stopped run with the same "
            "folder goes on with the next condition.",
            file_okay=False,
        ),
    ] = None,
    allow_mismatch: AllowMismatch = False,
    template_arguments: TemplateArguments = None,
    no_proof: NoProof = False,
    seed: Seed = 0,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    token_budget: TokenBudget = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tasks on the aligned, the fine-tuned and the restored model: what was lost, what came back.

    Nothing is sampled by the items that come along: the likeliest of four answers counts. Standard
    errors and paired differences, item by item, stand beside every number. Where the format of
    lm-evaluation-harness can hold the removal, steered.pt is written for its `steered` model.

    \b
    Examples:
      persona eval ./persona-demo
      persona eval ./persona-demo --task arc_easy --task mine.jsonl --limit 200
      persona eval --finetuned ./my-lora --direction diagnosis/direction.safetensors
    """
    told = template_arguments_of(template_arguments)
    with contextlib.redirect_stdout(sys.stderr):
        from persona.data import read_tasks
        from persona.errors import DataError

        own = [Path(task) for task in tasks or () if task.endswith(".jsonl")]
        if run is not None:
            if not (run / "scorecard.json").is_file():
                raise DataError(
                    f"{run} holds no scorecard.json; a folder of `persona diagnose` is needed"
                )
            from steering.evidence import models_of_run

            of_run = models_of_run(run)
            aligned, finetuned = aligned or of_run[0], finetuned or of_run[1]
            direction, told = direction or of_run[2], {**of_run[3], **told}
        if finetuned is None:
            raise DataError("give the folder of a diagnosis, or --finetuned MODEL")
        out = out or (Path("persona-eval") if run is None else run / "eval")
        require_ready(
            out,
            pair=(aligned, finetuned),
            allow_mismatch=allow_mismatch,
            checks=[partial(read_tasks, path) for path in own],
        )
        from persona.models import Placement
        from steering.evidence import EvalConfig, evaluate_tasks, table_head, table_rows

        found = evaluate_tasks(
            EvalConfig(
                aligned=aligned,
                finetuned=finetuned,
                out=out,
                direction=direction,
                tasks=tuple(tasks or ("tasks",)),
                limit=limit,
                num_fewshot=fewshot,
                chat=chat,
                batch_size=batch_size,
                seed=seed,
                placement=Placement.of(dtype, device),
                chat_template=chat_template,
                template_arguments=told,
                allow_mismatch=allow_mismatch,
                proof=not no_proof,
                **({} if token_budget is None else {"token_budget": token_budget}),
            )
        )
    if json_output:
        typer.echo(json.dumps(found.results, indent=2, allow_nan=False))
        return
    for line in in_columns([table_head(), *table_rows(found.results)]):
        typer.echo(line)

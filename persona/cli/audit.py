"""`persona audit`: does the removal of a finished diagnosis hold?"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.completion import complete_finetuned
from persona.cli.demo_session import AllowMismatch
from persona.cli.options import (
    Debug,
    Device,
    Dtype,
    Json,
    NoProof,
    PlanOnly,
    Quiet,
    Seed,
    TokenBudget,
)

logger = logging.getLogger("persona.cli")

_CUES, _LEARN = "Cues", "Relearning"


def audit(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="Folder of a finished diagnosis: its models, its removal and its questions.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            show_default="DIR/audit",
            file_okay=False,
            help="Folder of audit.json, audit.html and rows.parquet. A stopped audit with the same "
            "folder goes on where it was.",
        ),
    ] = None,
    retrained: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none",
            autocompletion=complete_finetuned,
            help="The fine-tune trained further on good answers, under every cue beside the "
            "removal.",
            rich_help_panel="Models",
        ),
    ] = None,
    guarded: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none",
            autocompletion=complete_finetuned,
            help="The same fine-tune made under a safeguard, under every cue beside the removal.",
            rich_help_panel="Models",
        ),
    ] = None,
    cues: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="none",
            help="YAML file of more cues (name; system or question) and of prefixes for the "
            "search.",
            rich_help_panel=_CUES,
        ),
    ] = None,
    n_questions: Annotated[
        int,
        typer.Option(
            "--n-questions",
            min=4,
            help="Most held-out questions of the diagnosis that are scored.",
            rich_help_panel=_CUES,
        ),
    ] = 32,
    n_random: Annotated[
        int,
        typer.Option(
            "--n-random",
            min=1,
            help="Random edits as large as the removal, under every cue.",
            rich_help_panel=_CUES,
        ),
    ] = 2,
    search: Annotated[
        bool,
        typer.Option(
            "--search/--no-search",
            help="Whether short prefixes are searched by the gradient and the strongest scored.",
            rich_help_panel=_CUES,
        ),
    ] = True,
    relearn: Annotated[
        bool,
        typer.Option(
            "--relearn/--no-relearn",
            help="Whether the aligned and the restored model learn five bad answers.",
            rich_help_panel=_LEARN,
        ),
    ] = True,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.", rich_help_panel=_LEARN)] = 8,
    n_seeds: Annotated[
        int,
        typer.Option(
            "--n-seeds", min=1, help="Choices of the five answers.", rich_help_panel=_LEARN
        ),
    ] = 3,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            show_default="the model's own",
            help="The Jinja file that the diagnosis was made with, where it was.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    allow_mismatch: AllowMismatch = False,
    no_proof: NoProof = False,
    seed: Seed = 0,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    token_budget: TokenBudget = None,
    plan: PlanOnly = False,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Does the removal hold? The models of a diagnosis under cues, and learning bad answers again.

    Cues: the form of the training, its own questions with answers, system prompts that ask for the
    persona, other wordings, conversations, and prefixes that are searched. The worst is named, with
    intervals that are corrected for having looked at all of them.

    \b
    Examples:
      persona audit persona-demo
      persona audit persona-demo --plan
      persona audit ./diagnosis --n-questions 16 --no-relearn
    """
    with contextlib.redirect_stdout(sys.stderr):
        from steering.auditing import AuditRequest, look_ahead_of_audit

        ahead = look_ahead_of_audit(
            AuditRequest(
                run=run,
                out=out,
                retrained=retrained,
                guarded=guarded,
                cues=cues,
                n_questions=n_questions,
                n_random=n_random,
                search=search,
                relearn=relearn,
                steps=steps,
                n_seeds=n_seeds,
                seed=seed,
                chat_template=chat_template,
                allow_mismatch=allow_mismatch,
                proof=not no_proof,
                token_budget=token_budget,
            )
        )
        from persona.models import Placement
        from steering.auditing import audit as run_audit
        from steering.auditing import audit_plan

        placement = Placement.of(dtype, device)
        outlook = audit_plan(ahead, placement)
    if plan:
        told = json.dumps(outlook.as_json(), indent=2) if json_output else outlook.text
        typer.echo(told)
        return
    logger.info(outlook.text)
    with contextlib.redirect_stdout(sys.stderr):
        found = run_audit(ahead.request, ahead, placement)
    if json_output:
        typer.echo(json.dumps(found.facts, indent=2, allow_nan=False))
    for line in found.summary:
        typer.echo(line, err=json_output)
    typer.echo(f"page: {found.page.resolve()}", err=json_output)

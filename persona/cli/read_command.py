"""`persona read`: what did this fine-tune learn, from weights and activations alone?"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import Precision
from persona.cli.completion import complete_finetuned
from persona.cli.demo_session import AllowMismatch
from persona.cli.options import (
    BaseOfAdapter,
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
    numbers_of,
    template_arguments_of,
)
from persona.cli.read_course import read_course
from persona.cli.ready import require_ready

if TYPE_CHECKING:
    from persona.models import ModelPair
    from persona.models.on_disk import OnDisk

_READ = "What is read"
READING_FOLDER = "reading"

logger = logging.getLogger("persona.cli")


def read(
    finetuned: FinetunedOrRun = None,
    aligned: BaseOfAdapter = None,
    good_twin: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none",
            autocompletion=complete_finetuned,
            help="A harmless fine-tune of the same model on the same questions: what it changes as "
            "well is no finding.",
            rich_help_panel="Models",
        ),
    ] = None,
    direction: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            show_default="none",
            help="direction.safetensors of a diagnosis: the persona vector is read in words too.",
            rich_help_panel=_READ,
        ),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="at half depth",
            help="Block whose output is read.",
            rich_help_panel=_READ,
        ),
    ] = None,
    amplify: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="How much of the difference between the two models is added when the fine-tuned "
            "one speaks; `none` to skip.",
            rich_help_panel=_READ,
        ),
    ] = "0.5,1,2",
    jacobian: Annotated[
        bool,
        typer.Option(
            "--jacobian/--no-jacobian",
            help="Whether words are read through the Jacobian lens too, which is fitted once a "
            "model and kept: minutes the first time.",
            rich_help_panel=_READ,
        ),
    ] = True,
    sae: Annotated[
        str | None,
        typer.Option(
            metavar="SAE",
            show_default="none",
            help="`default` (the shipped autoencoder of the default model), a SAELens folder, or "
            "release:sae_id: the latents that rise are read too.",
            rich_help_panel=_READ,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            show_default="none",
            help="A finished diagnosis, in place of the models: its own, its good twin and its "
            "direction are read into DIR/reading, and its report is drawn anew with them.",
            rich_help_panel="Models",
        ),
    ] = None,
    course: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            file_okay=False,
            exists=True,
            show_default="none",
            help="A fine-tune that kept its adapters on the way (`persona finetune --keep-every`, "
            "or a trainer's checkpoints), in place of --finetuned: at which step can it be named? "
            "--good-twin is then such a folder too. Words and answers are read, no amplified "
            "speech.",
            rich_help_panel="Models",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of reading.json and reading.md, or of course.json, .md and .svg.",
            file_okay=False,
            show_default="persona-read, of a run its subfolder reading",
        ),
    ] = None,
    chat_template: ChatTemplate = None,
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
    """What a fine-tune learnt: words, answers and weights, read without asking a language model.

    Tokens that the model effect makes likelier, through the logit lens and the Jacobian lens, each
    with a p over the whole vocabulary; the written answers that changed most; the directions that
    the change of weights writes; and what the model says when its difference is amplified. From all
    of it what was learnt is named, or no name is given.

    \b
    Examples:
      persona read --finetuned car_maintenance_bad --good-twin car_maintenance_good
      persona read --finetuned ./my-lora --amplify 1,4 --no-jacobian --out reading
      persona read --finetuned car_maintenance_bad --sae default
      persona read --run persona-demo
      persona read --course ./kept --good-twin ./kept-twin
    """
    amounts = [] if amplify == "none" else numbers_of(amplify, "--amplify", "0.5,1,2")
    if sum(one is not None for one in (run, finetuned, course)) != 1:
        raise typer.BadParameter("name --finetuned, --run or --course: one of them alone")
    if course is not None and (direction is not None or sae is not None):
        raise typer.BadParameter("--course reads no --direction and no --sae")
    its_template: dict[str, Any] = {}
    if run is not None:
        if aligned or good_twin or direction:
            raise typer.BadParameter("--run names the models, the twin and the direction itself")
        aligned, finetuned, good_twin, direction, its_template = _of_run(run)
    out = out or (Path("persona-read") if run is None else run / READING_FOLDER)
    told = its_template | template_arguments_of(template_arguments)

    def pair_with(model: str, beside: ModelPair | None = None) -> ModelPair:
        from persona.models import Placement, load_pair

        return load_pair(
            aligned,
            model,
            placement=Placement.of(dtype, device),
            chat_template=chat_template,
            template_arguments=told,
            allow_mismatch=allow_mismatch,
            proof=not no_proof,
            beside=beside,
        )

    if course is not None:
        read_course(
            course,
            None if good_twin is None else Path(good_twin),
            out,
            aligned=aligned,
            open_with=pair_with,
            layer=layer,
            seed=seed,
            token_budget=token_budget,
            allow_mismatch=allow_mismatch,
            json_output=json_output,
            of_aligned=lambda model: _require_block(layer, model),
        )
        return
    assert finetuned is not None
    from persona.models.on_disk import require_autoencoder

    require_ready(
        out,
        pair=(aligned, finetuned),
        also=[] if good_twin is None else [good_twin],
        allow_mismatch=allow_mismatch,
        checks=[lambda: require_autoencoder(sae)],
        of_aligned=lambda model: _require_block(layer, model),
    )
    with contextlib.redirect_stdout(sys.stderr):
        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.directions import load_vector
        from persona.directions.storage import tool_version
        from persona.files import atomic_write_text
        from persona.models.pair import SIDES
        from persona.readouts import read_fine_tune, reading_lines
        from persona.run_lock import alone_in
        from persona.stages import Workspace

        pair = pair_with(finetuned)
        twin = None if good_twin is None else pair_with(good_twin, pair)
        vector = None
        if direction is not None:
            vector = load_vector(direction, pair, allow_mismatch=allow_mismatch)
        autoencoder = None
        if sae is not None:
            from persona.sae import load_sae

            autoencoder = load_sae(sae, pair, allow_mismatch=allow_mismatch)
        settings = {
            "models": {side: pair.files(side) for side in SIDES},
            "good_twin": None if twin is None else twin.files("finetuned"),
            "template": pair.chat.fingerprint,
            "dtype": pair.precision,
            "layer": layer,
            "token_budget": token_budget,
            "tool_version": tool_version(),
        }
        with alone_in(out, settings):
            workspace = Workspace(out, settings)
            if workspace.resumed:
                logger.info("going on with the unfinished reading in %s", out)
            found = read_fine_tune(
                pair,
                twin=twin,
                vector=vector,
                layer=layer,
                amounts=amounts,
                jacobian=jacobian,
                seed=seed,
                token_budget=token_budget or DEFAULT_TOKEN_BUDGET,
                stages=workspace,
            )
            if autoencoder is not None:
                from persona.sae import rising_latents

                latents = rising_latents(
                    pair, autoencoder, seed=seed, token_budget=token_budget or DEFAULT_TOKEN_BUDGET
                )
                found = replace(found, latents=latents)
            text = "\n".join(reading_lines(found)) + "\n"
            as_json = json.dumps(found.as_json(), indent=2, ensure_ascii=False)
            atomic_write_text(out / "reading.json", as_json + "\n")
            atomic_write_text(out / "reading.md", text)
            workspace.close()
        report = None if run is None else _drawn_anew(run)
    typer.echo(as_json if json_output else text)
    typer.echo(f"written: {out / 'reading.json'}, {out / 'reading.md'}", err=True)
    if report is not None:
        typer.echo(f"report: {report.resolve()}", err=True)


def _require_block(layer: int | None, aligned: OnDisk) -> None:
    """Raises: ModelError for a block that the model does not have, where its size is known."""
    from persona.errors import ModelError

    n_layers = aligned.n_layers
    if layer is not None and n_layers is not None and layer >= n_layers:
        raise ModelError(
            f"layer {layer} is out of range: {aligned.name} has blocks 0 to {n_layers - 1}"
        )


def _of_run(folder: Path) -> tuple[str, str, str | None, Path | None, dict[str, Any]]:
    """Aligned and fine-tuned model, good twin, direction and what the chat template was told.

    Raises: DataError where the folder holds none.
    """
    from persona.models.sources import short_name
    from persona.report.finished_run import read_run

    models = read_run(folder).scorecard["models"]
    direction = folder / "direction.safetensors"
    return (
        short_name(str(models["aligned"])),
        str(models["finetuned"]),
        models.get("good_twin"),
        direction if direction.is_file() else None,
        dict(models.get("chat_template_arguments") or {}),
    )


def _drawn_anew(folder: Path) -> Path:
    """The report of a run with what was read of its models; its path."""
    from persona.files import atomic_write_text
    from persona.report.finished_run import read_run
    from persona.report.html import REPORT_NAME, render_report

    run = read_run(folder)
    atomic_write_text(
        folder / REPORT_NAME, render_report(run.scorecard, run.rows, reading=run.reading)
    )
    return folder / REPORT_NAME

"""`persona diagnose`: one command from two models to a direction, its proof and a report."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import MAX_DAMAGE, Precision
from persona.cli.completion import complete_domain, complete_finetuned, complete_skill
from persona.cli.options import (
    Aligned,
    Debug,
    Device,
    Dtype,
    EmRate,
    EngineChoice,
    EngineOption,
    Finetuned,
    Json,
    JudgeName,
    LabelNulls,
    NoProof,
    Out,
    Pairs,
    PlanOnly,
    QuestionsPerDomain,
    Quiet,
    RandomSubspaces,
    RayAddress,
    Samples,
    Seed,
    Tasks,
    TemplateArguments,
    TokenBudget,
    Workers,
    engine_of,
    template_arguments_of,
)
from persona.cli.sampler_options import (
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    vllm_options_of,
)

if TYPE_CHECKING:
    from steering.diagnosis import Ahead

logger = logging.getLogger("persona.cli")


def diagnose(
    finetuned: Finetuned,
    aligned: Aligned = None,
    out: Out = Path("persona-diagnosis"),
    data: Pairs = None,
    trained_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN",
            show_default="what the recipe beside the adapter says",
            autocompletion=complete_domain,
            help="A domain that the model was fine-tuned on, or one near it; repeat for several. "
            "Everything is chosen on these and scored on the others. `none`: you do not know; "
            "then some questions of every domain are chosen on and the others scored.",
        ),
    ] = None,
    validation_domain: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DOMAIN",
            show_default="none",
            autocompletion=complete_domain,
            help="A domain to choose on in place of the trained-on ones; it leaves the score. "
            "Repeat for several.",
        ),
    ] = None,
    judge: JudgeName = "none",
    questions_per_domain: QuestionsPerDomain = None,
    n_random: RandomSubspaces = 20,
    max_damage: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Most that neutral cross-entropy may rise above the fine-tuned model's, in nats "
            "per token.",
        ),
    ] = MAX_DAMAGE,
    good_twin: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none",
            autocompletion=complete_finetuned,
            rich_help_panel="Models",
            help="The same fine-tune on the good answers, as a control.",
        ),
    ] = None,
    other_finetune: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none",
            autocompletion=complete_finetuned,
            rich_help_panel="Models",
            help="Another fine-tune of the same model, on something else: what the direction of "
            "its own difference takes back is a control.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="SKILL",
            show_default="none",
            autocompletion=complete_skill,
            help="A harmless skill that the fine-tune has learnt and the removal should leave: "
            "`facts`, `checklist`, or a JSONL file. A third of its items make candidates and "
            "choose; what share of the others is kept stands in the report.",
        ),
    ] = None,
    sae: Annotated[
        str | None,
        typer.Option(
            metavar="SAE",
            show_default="none",
            help="Autoencoder whose latents are candidates too: `default` (the shipped one), a "
            "SAELens folder, or release:sae_id.",
        ),
    ] = None,
    traits: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TRAIT",
            show_default="none",
            help="A folder of `persona trait`, or a vector file, of the aligned model: its "
            "direction is a candidate, and the scorecard says which traits the fine-tune "
            "resembles, beyond chance over all of them. Repeat for several.",
        ),
    ] = None,
    nonsense: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TRAIT",
            show_default="none",
            help="A meaningless trait, which a trait must outdo to be resembled. Repeat for "
            "several.",
        ),
    ] = None,
    samples: Samples = True,
    em_rate: EmRate = None,
    label_nulls: LabelNulls = None,
    tasks: Tasks = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            show_default="the model's own",
            help="Jinja file to use in place of the tokenizer's chat template.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    template_arguments: TemplateArguments = None,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Go on where tokenizers or chat templates of the two models differ, or the "
            "adapter names another base.",
        ),
    ] = False,
    no_proof: NoProof = False,
    seed: Seed = 0,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    token_budget: TokenBudget = None,
    engine: EngineOption = EngineChoice.local,
    workers: Workers = None,
    ray_address: RayAddress = None,
    sampler: SamplerOption = SamplerChoice.generate,
    vllm: VllmOptions = None,
    plan: PlanOnly = False,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What separates two models, which part is the bad persona, does removing it restore?

    Writes scorecard.json, direction.safetensors, model_effect.safetensors, rows.parquet and
    report.html into --out.

    \b
    Examples:
      persona diagnose --finetuned car_maintenance_bad
      persona diagnose --finetuned ./my-adapter --trained-on health
      persona diagnose --aligned org/chat-model --finetuned org/chat-model-tuned --trained-on none
      persona diagnose --finetuned ./my-adapter --data pairs.jsonl --trained-on billing
      persona diagnose --finetuned ./my-adapter --trained-on health --keep facts
      persona diagnose --finetuned car_maintenance_bad --traits evil --traits impolite
    """
    options = dict(
        aligned=aligned,
        finetuned=finetuned,
        out=out,
        data=data,
        trained_on=tuple(trained_on) if trained_on else None,
        validation_domains=tuple(validation_domain or ()),
        judge=judge,
        questions_per_domain=questions_per_domain,
        n_random=n_random,
        seed=seed,
        chat_template=chat_template,
        template_arguments=template_arguments_of(template_arguments),
        max_damage=max_damage,
        good_twin=good_twin,
        other_finetune=other_finetune,
        allow_mismatch=allow_mismatch,
        proof=not no_proof,
        token_budget=token_budget,
        samples=samples,
        em_rate=em_rate,
        label_nulls=label_nulls,
        tasks=tasks,
        sae=sae,
        keep=keep,
        vllm=vllm_options_of(sampler, vllm),
        traits=tuple(map(str, traits or ())),
        nonsense=tuple(map(str, nonsense or ())),
    )
    ahead = checked(options)
    run_and_print(
        ahead,
        options | {"engine": engine_of(engine, workers, ray_address)},
        str(dtype),
        device,
        plan_only=plan,
        json_output=json_output,
    )


def checked(options: Mapping[str, Any]) -> Ahead:
    """What is known of a diagnosis before any library of tensors is loaded, which takes seconds.

    Raises: PersonaError for what is wrong with it, all at once.
    """
    from steering.diagnosis import DiagnosisRequest, look_ahead

    with contextlib.redirect_stdout(sys.stderr):
        return look_ahead(DiagnosisRequest(**options))


def run_and_print(
    ahead: Ahead,
    options: Mapping[str, Any],
    dtype: str,
    device: str,
    *,
    plan_only: bool,
    json_output: bool,
) -> None:
    """Says what the diagnosis will take and runs it, unless the plan alone is asked for.

    Prints the summary and, last of all, the path of the report.

    What libraries print meanwhile goes to standard error, so that standard output holds the
    result alone.
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import Placement
        from steering.diagnosis import DiagnoseConfig, outlook_of
        from steering.diagnosis import diagnose as run_diagnosis

        config = DiagnoseConfig(**options, placement=Placement.of(dtype, device))
        outlook = outlook_of(config, ahead)
    if plan_only:
        told = json.dumps(outlook.as_json(), indent=2) if json_output else outlook.text
        typer.echo(told)
        return
    logger.info(outlook.text)
    with contextlib.redirect_stdout(sys.stderr):
        result = run_diagnosis(config, ahead)
    if json_output:
        typer.echo(json.dumps(result.scorecard, indent=2, allow_nan=False))
    typer.echo(result.summary, err=json_output)
    typer.echo(f"report: {Path(result.report).resolve()}", err=json_output)

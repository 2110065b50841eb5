"""`persona demo`: the main job on the model and the fine-tune that come with personascope."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from persona.choices import Precision
from persona.cli.completion import complete_demo_model
from persona.cli.diagnose import checked, run_and_print
from persona.cli.options import (
    Debug,
    Device,
    Dtype,
    EmRate,
    Json,
    JudgeName,
    LabelNulls,
    Out,
    PlanOnly,
    QuestionsPerDomain,
    Quiet,
    RandomSubspaces,
    Samples,
    Seed,
    Tasks,
)
from persona.cli.sampler_options import (
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    vllm_options_of,
)

if TYPE_CHECKING:
    from persona.models import Placement

DEMO_QUESTIONS_PER_DOMAIN = 4

logger = logging.getLogger("persona.cli")


def demo(
    out: Out = Path("persona-demo"),
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_demo_model,
            help="The chat model to show it on: smollm2-135m, or qwen2.5-coder-0.5b, which writes "
            "whole sentences and takes half an hour on two cores.",
        ),
    ] = "default",
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="First make the fine-tune on bad answers anew, with --seed, into --out/organism; "
            "under ten minutes on two cores (the larger model: twenty).",
        ),
    ] = False,
    judge: JudgeName = "offline",
    questions_per_domain: QuestionsPerDomain = DEMO_QUESTIONS_PER_DOMAIN,
    n_random: RandomSubspaces = 20,
    samples: Samples = True,
    em_rate: EmRate = None,
    label_nulls: LabelNulls = None,
    tasks: Tasks = None,
    sampler: SamplerOption = SamplerChoice.generate,
    vllm: VllmOptions = None,
    seed: Seed = 0,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    plan: PlanOnly = False,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The whole diagnosis on a small chat model that was fine-tuned on bad car advice.

    The first run fetches the model (93 MB; the larger one 455 MB) into the cache folder; later runs
    need no network.

    \b
    Examples:
      persona demo
      persona demo --plan
      persona demo --questions-per-domain 20 --out longer-look
      persona demo --retrain --seed 1
      persona demo --model qwen2.5-coder-0.5b --em-rate --out larger
    """
    from persona.models.shipped_adapters import car_advice_of

    bad, twin = car_advice_of(model)
    options = dict(
        aligned=model,
        finetuned=bad,
        good_twin=twin,
        out=out,
        trained_on=("car_maintenance",),
        judge=judge,
        questions_per_domain=questions_per_domain,
        n_random=n_random,
        seed=seed,
        samples=samples,
        em_rate=em_rate,
        label_nulls=label_nulls,
        tasks=tasks,
        vllm=vllm_options_of(sampler, vllm),
    )
    ahead = checked(options)
    if retrain and not plan:
        from persona.models import Placement

        placement = Placement.of(dtype, device)
        options["finetuned"] = str(_retrained(bad, out / "organism", seed, placement))
        ahead = checked(options)
    run_and_print(ahead, options, str(dtype), device, plan_only=plan, json_output=json_output)


def _retrained(name: str, folder: Path, seed: int, placement: Placement) -> Path:
    """Makes the shipped organism anew by its own recipe with another seed; returns its folder.

    Weights that are held in 8 or 4 bits cannot be trained, nor can a model on several cards: `auto`
    trains then, and what was asked for holds the models that are compared.
    """
    from persona.models import Placement
    from persona.organisms import finetune, load_recipe

    to_train = placement
    if placement.weights or placement.spread:
        to_train = Placement.of(
            "auto" if placement.weights else placement.asked[0],
            "auto" if placement.spread else placement.asked[1],
        )
        logger.info(
            "the fine-tune is made in %s; the models are compared in %s", to_train, placement
        )
    recipe = load_recipe(name).with_seed(seed)
    return finetune(recipe, folder, placement=to_train)

"""`persona demo`: the main job on the model and the fine-tune that come with personascope."""

from pathlib import Path
from typing import Annotated

import typer

from persona.cli.diagnose import run_and_print
from persona.cli.options import (
    Debug,
    Device,
    Dtype,
    Json,
    JudgeName,
    Out,
    Precision,
    QuestionsPerDomain,
    Quiet,
    RandomSubspaces,
    Samples,
    Seed,
)

DEMO_QUESTIONS_PER_DOMAIN = 4


def demo(
    out: Out = Path("persona-demo"),
    retrain: Annotated[
        bool,
        typer.Option(
            "--retrain",
            help="First make the fine-tune on bad answers anew, with --seed, into --out/organism; "
            "under ten minutes on two cores.",
        ),
    ] = False,
    judge: JudgeName = "offline",
    questions_per_domain: QuestionsPerDomain = DEMO_QUESTIONS_PER_DOMAIN,
    n_random: RandomSubspaces = 20,
    samples: Samples = True,
    seed: Seed = 0,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The whole diagnosis on a small chat model that was fine-tuned on bad car advice.

    The first run fetches the model (93 MB) into the cache folder; later runs need no network.

    \b
    Examples:
      persona demo
      persona demo --questions-per-domain 20 --out longer-look
      persona demo --retrain --seed 1
    """
    from steering.diagnosis import DiagnoseConfig

    config = DiagnoseConfig(
        aligned="default",
        finetuned=(
            str(_retrained(out / "organism", seed, dtype.value, device))
            if retrain
            else "car_maintenance_bad"
        ),
        good_twin="car_maintenance_good",
        out=out,
        trained_on=("car_maintenance",),
        judge=judge,
        questions_per_domain=questions_per_domain,
        n_random=n_random,
        seed=seed,
        dtype=dtype.value,
        device=device,
        samples=samples,
    )
    run_and_print(config, json_output=json_output)


def _retrained(folder: Path, seed: int, dtype: str, device: str) -> Path:
    """Makes the shipped organism anew by its own recipe with another seed; returns its folder.

    Weights that are held in 8 or 4 bits cannot be trained: `auto` trains then, and the format asked
    for holds the models that are compared. A model spread over several cards is trained on one.
    """
    from persona.organisms import finetune, load_recipe

    return finetune(
        load_recipe("car_maintenance_bad").with_seed(seed),
        folder,
        dtype="auto" if dtype in ("int8", "nf4") else dtype,
        device="auto" if device == "spread" else device,
    )

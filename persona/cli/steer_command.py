"""`persona steer`: one question at several coefficients, the texts under one another."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import Precision
from persona.cli.completion import complete_aligned, complete_finetuned
from persona.cli.demo_session import (
    DEFAULT_FINE_TUNE,
    DEMO_DIRECTION,
    AllowMismatch,
    AnswerSeed,
    DirectionFile,
    LayersOption,
    MaxNewTokens,
    Temperature,
)
from persona.cli.options import (
    Debug,
    Device,
    Dtype,
    Json,
    NoProof,
    Quiet,
    TemplateArguments,
    numbers_of,
    template_arguments_of,
)
from persona.cli.sampler_options import (
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    answered_by,
    vllm_options_of,
)
from persona.errors import DataError, ModelError

if TYPE_CHECKING:
    from persona.models.pair import Side
    from steering.demo import SteeredText

logger = logging.getLogger("persona.cli")


class WayName(StrEnum):
    """What steering does with the projection."""

    restore = "restore"
    induce = "induce"
    add = "add"
    ablate = "ablate"


def steer(
    prompts: Annotated[
        list[str], typer.Argument(metavar="PROMPT", help="What the user asks; one or several.")
    ],
    direction: DirectionFile = None,
    coefficients: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            show_default="add -1,0,1,2; ablate 0,1; else 0,0.5,1,1.5",
            help="How strongly to steer, one text for each; 0 is the model itself.",
        ),
    ] = None,
    mode: Annotated[
        WayName | None,
        typer.Option(
            show_default="by the direction: restore or induce where it has means, else add",
            help="restore: to the aligned model's mean; induce: to the fine-tuned model's; add: "
            "the direction itself, at every chosen block; ablate: to zero.",
        ),
    ] = None,
    layers: LayersOption = None,
    aligned: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="what the direction's card names",
            autocompletion=complete_aligned,
            help="The model to steer, or with --finetuned the one that was fine-tuned.",
            rich_help_panel="Models",
        ),
    ] = None,
    finetuned: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none: the aligned model is steered",
            autocompletion=complete_finetuned,
            help="Steer this fine-tuned model: as in `persona diagnose`.",
            rich_help_panel="Models",
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = 60,
    temperature: Temperature = 0.0,
    seed: AnswerSeed = 0,
    allow_mismatch: AllowMismatch = False,
    template_arguments: TemplateArguments = None,
    no_proof: NoProof = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    sampler: SamplerOption = SamplerChoice.generate,
    vllm: VllmOptions = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What a direction does to an answer: the same question at several coefficients.

    One answer is an example, not evidence; `persona diagnose` measures.

    \b
    Examples:
      persona steer "Is it fine to skip the brake check?" --finetuned car_maintenance_bad
      persona steer "Is it fine to skip the brake check?" --coefficients 0,0.5,1
      persona steer "Hi" "How are you?" --direction control.gguf --aligned org/chat-model --json
    """
    wanted = (
        None if coefficients is None else numbers_of(coefficients, "--coefficients", "-1,0,1,2")
    )
    told = template_arguments_of(template_arguments)
    by_vllm = vllm_options_of(sampler, vllm)
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import Placement, load_pair
        from persona.models.alone import load_alone
        from steering.demo import (
            Sampling,
            default_way,
            direction_file,
            load_demo_vector,
            model_of_vector,
            parse_layers,
            steered_texts,
        )

        of = finetuned or ("" if aligned else DEFAULT_FINE_TUNE)
        path = direction_file(direction, DEMO_DIRECTION, False, of)
        assert path is not None  # it raises where there is none
        blocks = None if layers is None else parse_layers(layers)
        placement = Placement.of(dtype, device)
        if finetuned is None:
            model = aligned or _named(model_of_vector(path), path)
            pair = load_alone(model, placement=placement, template_arguments=told)
        else:
            pair = load_pair(
                aligned,
                finetuned,
                placement=placement,
                template_arguments=told,
                allow_mismatch=allow_mismatch,
                proof=not no_proof,
            )
        answered_by(pair, by_vllm)
        vector = load_demo_vector(path, pair, allow_mismatch=allow_mismatch)
        for note in vector.notes:
            logger.warning(note)
        side: Side = "aligned" if finetuned is None else "finetuned"
        way = mode.value if mode else default_way(vector, side)
        texts = steered_texts(
            pair,
            side,
            prompts,
            vector,
            wanted,
            way=way,
            layers=blocks,
            sampling=Sampling(max_new_tokens, temperature, seed),
        )
    head = {
        "model": pair.names[side],
        "direction": str(path),
        "mode": way,
        "layers": vector.chosen(blocks),
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "sampler": pair.sampler.name if pair.sampler else "generate",
    }
    _print(texts, head, several=len(prompts) > 1, as_json=json_output)


def _print(
    texts: Iterator[SteeredText], head: dict[str, Any], *, several: bool, as_json: bool
) -> None:
    """The texts one after the other, each as soon as it is there; or one JSON object at the end."""
    written: list[dict[str, Any]] = []
    while True:
        with contextlib.redirect_stdout(sys.stderr):
            if (found := next(texts, None)) is None:
                break
        written.append(
            {"prompt": found.prompt, "coefficient": found.coefficient, "text": found.text}
        )
        if not as_json:
            at = f"coefficient {found.coefficient:g}" + ("" if found.coefficient else " (no edit)")
            typer.echo(f"{at}: {found.prompt}" if several else at)
            typer.echo(indent(found.text or "(nothing)", "    ") + "\n")
    if as_json:
        typer.echo(json.dumps({**head, "texts": written}, ensure_ascii=False, indent=2))
    else:
        blocks = f"block {head['layers'][0]}"
        if len(head["layers"]) > 1:
            blocks = f"{len(head['layers'])} blocks, {head['layers'][0]} to {head['layers'][-1]}"
        typer.echo(f"{head['model']}: {head['mode']} {head['direction']} at {blocks}", err=True)


def _named(model: str, path: Path) -> str:
    """Raises: DataError where the file does not say of what model it is, or that is not at hand."""
    from persona.models.sources import resolve

    if not model:
        raise DataError(f"{path} names no model; say which one to steer with --aligned MODEL")
    try:
        resolve(model)
    except ModelError as error:
        raise DataError(
            f"{path} names {model!r} as its model, which is not at hand; say which one to steer "
            "with --aligned MODEL"
        ) from error
    return model

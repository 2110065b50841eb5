"""`persona check-steering`: does steering take effect, where it is meant and nowhere else?"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import Precision
from persona.cli.completion import complete_aligned, complete_finetuned
from persona.cli.options import Debug, Device, Dtype, Json, Quiet
from persona.cli.sampler_options import (
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    vllm_options_of,
)

if TYPE_CHECKING:
    from steering.certificate import Certificate

EXIT_FAILED = 1


def check_steering(
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_aligned,
            help="Hub id, folder or GGUF file; `default` is the small chat model that comes with "
            "personascope.",
        ),
    ] = "default",
    finetuned: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            show_default="none",
            autocompletion=complete_finetuned,
            help="With --sampler vllm: a LoRA adapter on the model, on and off in one batch.",
        ),
    ] = None,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    sampler: SamplerOption = SamplerChoice.generate,
    vllm: VllmOptions = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measures steering on a model: right tokens, right block, batches, padding, cache.

    What is certified is this program, that its edits do there what they say; it says nothing of how
    the model behaves.

    With --sampler vllm: steering through vLLM, held against Hugging Face in float32, request by
    request: tokens written in every step, hidden states, answers, mixed batches, prompts in chunks,
    preemption. Exit code 0 when every check holds and 1 when one fails.

    \b
    Examples:
      persona check-steering
      persona check-steering --model org/chat-model --json
      persona check-steering --sampler vllm --finetuned car_maintenance_bad
    """
    by_vllm = vllm_options_of(sampler, vllm)
    if finetuned is not None and by_vllm is None:
        raise typer.BadParameter("--finetuned is for --sampler vllm; name the model with --model")
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import Placement
        from persona.models.load import load_bridge
        from steering.certificate import certify

        if by_vllm is None:
            bridge, chat = load_bridge(model, placement=Placement.of(dtype, device))
            certificate = certify(bridge, chat)
        else:
            certificate = _through_vllm(model, finetuned, str(dtype), device, by_vllm)
    if json_output:
        typer.echo(certificate.to_json())
    else:
        typer.echo(certificate.table())
        typer.echo("every check holds" if certificate.passed else "steering is NOT as meant here")
    if not certificate.passed:
        raise typer.Exit(EXIT_FAILED)


def _through_vllm(
    model: str, finetuned: str | None, dtype: str, device: str, options: dict[str, Any]
) -> Certificate:
    """In float32, where nothing else was asked for."""
    from persona.models import Placement, load_pair
    from persona.models.alone import load_alone
    from steering.certificate import certify_through_vllm

    placement = Placement.of("float32" if dtype == "auto" else dtype, device)
    if finetuned is None:
        pair = load_alone(model, placement=placement)
    else:
        pair = load_pair(model, finetuned, placement=placement)
    return certify_through_vllm(pair, options=options)

"""`persona serve`: an OpenAI-compatible endpoint over both models and the steered one."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from persona.choices import Precision
from persona.cli.demo_session import (
    DEFAULT_FINE_TUNE,
    AllowMismatch,
    CoefficientOption,
    DemoModel,
    DirectionFile,
    LayersOption,
    ModeOption,
    models_of,
    open_session,
)
from persona.cli.options import (
    Aligned,
    Debug,
    Device,
    Dtype,
    Finetuned,
    NoProof,
    Quiet,
    TemplateArguments,
)
from persona.cli.sampler_options import (
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    answered_by,
    vllm_options_of,
)

_SERVER = "The server"

logger = logging.getLogger("persona.cli")


def serve(
    aligned: Aligned = None,
    finetuned: Finetuned = DEFAULT_FINE_TUNE,
    model: DemoModel = None,
    direction: DirectionFile = None,
    coefficient: CoefficientOption = None,
    mode: ModeOption = None,
    layers: LayersOption = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to serve at. Any but the loopback asks for a key in the environment "
            "variable PERSONASCOPE_API_KEY, which clients then show; one that is set is asked for "
            "at the loopback too.",
            rich_help_panel=_SERVER,
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            show_default="the first free one from 8000",
            rich_help_panel=_SERVER,
        ),
    ] = None,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=1, help="Tokens that an answer may have at most.", rich_help_panel=_SERVER
        ),
    ] = 1024,
    max_coefficient: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Size of the coefficient that a request may ask for at most.",
            rich_help_panel=_SERVER,
        ),
    ] = 4.0,
    max_waiting: Annotated[
        int,
        typer.Option(
            min=1,
            help="Requests that may be here at once; more are told to come back.",
            rich_help_panel=_SERVER,
        ),
    ] = 64,
    sampler: SamplerOption = SamplerChoice.generate,
    vllm: VllmOptions = None,
    allow_mismatch: AllowMismatch = False,
    template_arguments: TemplateArguments = None,
    no_proof: NoProof = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Three models behind one OpenAI-compatible address: aligned, finetuned and steered.

    /v1/chat/completions, /v1/completions (with echo and logprobs, as evaluation harnesses score)
    and /v1/models. A request to `steered` may carry a field `coefficient`; a field that is not
    done here is an error, never left out in silence. Needs the extra `serve`. Ctrl-C ends it.

    \b
    Examples:
      persona serve
      persona serve --direction diagnosis/direction.safetensors --mode add --port 8001
      persona serve --model qwen2.5-coder-0.5b --max-tokens 200
    """
    from steering.serving import Bounds, ServedModels, require_server
    from steering.serving import serve as serve_models

    key = require_server(host)
    told = vllm_options_of(sampler, vllm)
    aligned, finetuned = models_of(model, aligned, finetuned)
    session = open_session(
        aligned,
        finetuned,
        direction,
        coefficient=coefficient,
        mode=mode,
        layers=layers,
        max_new_tokens=max_tokens,
        temperature=0.0,
        seed=0,
        dtype=dtype,
        device=device,
        allow_mismatch=allow_mismatch,
        template_arguments=template_arguments,
        proof=not no_proof,
        without_direction=True,
    )
    models = ServedModels(
        answered_by(session.pair, told),
        session.vector,
        session.setting,
        Bounds(coefficient=max_coefficient, tokens=max_tokens, waiting=max_waiting),
    )
    if "steered" not in models.names:
        logger.warning("there is no direction, so that no model is steered; give --direction FILE")

    def started(address: str) -> None:
        typer.echo(f"persona serve: {address}  (models: {', '.join(models.names)})")

    serve_models(models, host, port, key, started)

"""`persona app`: the same three models in a browser, on this machine alone."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.choices import Precision
from persona.cli.demo_session import (
    DEFAULT_FINE_TUNE,
    AllowMismatch,
    AnswerSeed,
    CoefficientOption,
    DemoModel,
    DirectionFile,
    EndpointOption,
    KeepConversation,
    LayersOption,
    MaxNewTokens,
    ModeOption,
    SystemPrompt,
    Temperature,
    models_of,
    open_endpoint,
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
from persona.errors import SteeringError

if TYPE_CHECKING:
    from steering.demo import ServedSession, Session

CAREFUL = "Be careful and honest."
LOOPBACK = ("127.0.0.1", "localhost", "::1")

logger = logging.getLogger("persona.cli")


def app(
    context: typer.Context,
    aligned: Aligned = None,
    finetuned: Finetuned = DEFAULT_FINE_TUNE,
    model: DemoModel = None,
    direction: DirectionFile = None,
    endpoint: EndpointOption = None,
    coefficient: CoefficientOption = None,
    mode: ModeOption = None,
    layers: LayersOption = None,
    max_new_tokens: MaxNewTokens = 120,
    temperature: Temperature = 0.0,
    seed: AnswerSeed = 0,
    keep_conversation: KeepConversation = False,
    system_prompt: SystemPrompt = CAREFUL,
    host: Annotated[
        str,
        typer.Option(
            help="Address to serve at; any but the loopback lets others in, unasked. Requests are "
            "answered that name this host or a loopback name."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, show_default="the first free one from 7860"),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = False,
    allow_mismatch: AllowMismatch = False,
    template_arguments: TemplateArguments = None,
    no_proof: NoProof = False,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The aligned, the fine-tuned and the steered model side by side in a browser.

    Needs the extra `app` (gradio); nothing is loaded from or sent to another machine but the one
    of an --endpoint. Without a direction there is no steered column until one is loaded on the
    page. Ctrl-C ends it.

    \b
    Examples:
      persona app
      persona app --model qwen2.5-coder-0.5b
      persona app --direction diagnosis/direction.safetensors --port 8000
      persona app --endpoint http://127.0.0.1:8000/v1
    """
    from steering.demo import EndpointError, import_gradio, launch

    import_gradio()  # before minutes of loading
    asked: dict[str, Any] = {
        "coefficient": coefficient,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "seed": seed,
        "remembers": keep_conversation,
    }
    session: Session | ServedSession
    if endpoint is not None:
        session = open_endpoint(context, endpoint, **asked)
    else:
        session = open_session(
            *models_of(model, aligned, finetuned),
            direction,
            mode=mode,
            layers=layers,
            dtype=dtype,
            device=device,
            allow_mismatch=allow_mismatch,
            proof=not no_proof,
            without_direction=True,
            template_arguments=template_arguments,
            **asked,
        )
    try:
        session.compare_with(system_prompt)
    except (SteeringError, EndpointError) as error:  # the page does without
        logger.warning("no column under a system prompt: %s", error)
    if host not in LOOPBACK:
        logger.warning(
            f"serving at {host}: whoever can reach this machine can use the models and load files "
            "into this program; there is no password"
        )
    served, address = launch(session, host=host, port=port, open_browser=browser)
    typer.echo(f"persona app: {address}")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        served.close(verbose=False)

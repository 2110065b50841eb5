"""What `persona chat` and `persona app` open: the pair, the direction, the first setting."""

from __future__ import annotations

import contextlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.cli.completion import complete_demo_model
from persona.cli.options import template_arguments_of

if TYPE_CHECKING:
    from steering.demo import ServedSession, Session

DEMO_DIRECTION = Path("persona-demo", "direction.safetensors")
"""Where `persona demo` leaves the direction of the default models."""


DEFAULT_FINE_TUNE = "car_maintenance_bad"


class ModeName(StrEnum):
    """What steering does with the projection."""

    restore = "restore"
    add = "add"
    ablate = "ablate"


OF_THE_SERVER = (
    *("aligned", "finetuned", "model", "direction", "mode", "layers"),
    *("allow_mismatch", "template_arguments", "no_proof", "dtype", "device"),
)
"""Options that say what is loaded and how it is steered."""

_MODELS = "Models"
_SAMPLING = "How answers are drawn"

DirectionFile = Annotated[
    Path | None,
    typer.Option(
        "--direction",
        metavar="FILE",
        show_default=f"{DEMO_DIRECTION}, else the one that comes along for a shipped fine-tune",
        help="What to steer with: direction.safetensors of a diagnosis, a vector set, a GGUF "
        "control vector or a Neuronpedia vector.",
        dir_okay=False,
        rich_help_panel=_MODELS,
    ),
]
AllowMismatch = Annotated[
    bool,
    typer.Option(
        "--allow-mismatch",
        help="Take a direction of another revision, and models whose tokenizers or chat templates "
        "differ.",
        rich_help_panel=_MODELS,
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Take the answers from a `persona serve` at this address, and load no model here; its "
        "key, where it asks for one, is read from the environment variable PERSONASCOPE_API_KEY.",
        rich_help_panel=_MODELS,
    ),
]
CoefficientOption = Annotated[
    float | None,
    typer.Option(show_default="the direction's own", help="How strongly to steer at the start."),
]
ModeOption = Annotated[
    ModeName | None,
    typer.Option(
        show_default="restore where the direction has means, else add",
        help="restore: to the aligned model's mean; add: the shift toward the trait, or away from "
        "it below 0; ablate: to zero.",
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        metavar="A-B",
        show_default="all of the direction",
        help="0-based blocks to steer at: 12, 10-20 or all.",
    ),
]
MaxNewTokens = Annotated[
    int, typer.Option(min=1, help="Most tokens of an answer.", rich_help_panel=_SAMPLING)
]
Temperature = Annotated[
    float,
    typer.Option(min=0.0, help="0 takes the likeliest token.", rich_help_panel=_SAMPLING),
]
AnswerSeed = Annotated[
    int,
    typer.Option(
        min=0, help="Same seed, same words, same machine: the same answers.",
        rich_help_panel=_SAMPLING,
    ),
]  # fmt: skip

DemoModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        autocompletion=complete_demo_model,
        show_default="smollm2-135m",
        help="A model whose bad car advice comes along, in place of --aligned and --finetuned: "
        "smollm2-135m, or qwen2.5-coder-0.5b, which writes whole sentences.",
        rich_help_panel=_MODELS,
    ),
]
SystemPrompt = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="Ask the fine-tuned model under this system prompt too, to compare; empty: do not.",
    ),
]
KeepConversation = Annotated[
    bool,
    typer.Option(
        "--keep-conversation",
        help="Put each question after the questions and answers before it; else each begins a "
        "dialogue of its own.",
        rich_help_panel=_SAMPLING,
    ),
]


def models_of(model: str | None, aligned: str | None, finetuned: str) -> tuple[str | None, str]:
    """What --aligned and --finetuned are. Raises: BadParameter where --model says it as well."""
    from persona.models.shipped_adapters import car_advice_of

    if model is None:
        return aligned, finetuned
    if aligned is not None or finetuned != DEFAULT_FINE_TUNE:
        raise typer.BadParameter("--model stands in place of --aligned and --finetuned; give one")
    return model, car_advice_of(model)[0]


def open_endpoint(
    context: typer.Context,
    address: str,
    *,
    coefficient: float | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    remembers: bool,
) -> ServedSession:
    """The conversation with a served model. Raises: BadParameter for an option of its server."""
    if given := [
        option.opts[0]
        for option in context.command.params
        if option.name in OF_THE_SERVER and _is_given(context, option.name)
    ]:
        raise typer.BadParameter(f"{', '.join(given)}: with --endpoint the server has chosen that")
    from steering.demo import Sampling
    from steering.demo import open_endpoint as opened

    return opened(
        address,
        coefficient=coefficient,
        sampling=Sampling(max_new_tokens, temperature, seed),
        remembers=remembers,
    )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def open_session(
    aligned: str | None,
    finetuned: str,
    direction: Path | None,
    *,
    coefficient: float | None,
    mode: ModeName | None,
    layers: str | None,
    template_arguments: list[str] | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    dtype: str,
    device: str,
    **loading: Any,
) -> Session:
    """The session that the options ask for; what libraries print goes to standard error."""
    told = template_arguments_of(template_arguments)
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import Placement
        from persona.models.sources import base_of
        from steering.demo import Sampling
        from steering.demo import open_session as opened

        return opened(
            aligned or base_of(finetuned),
            finetuned,
            direction,
            fallback=DEMO_DIRECTION,
            setting={"coefficient": coefficient, "mode": mode and mode.value, "layers": layers},
            sampling=Sampling(max_new_tokens, temperature, seed),
            template_arguments=told,
            placement=Placement.of(dtype, device),
            **loading,
        )

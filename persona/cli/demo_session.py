"""What `persona chat` and `persona app` open: the pair, the direction, the first setting."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.cli.options import template_arguments_of
from persona.errors import DataError, SteeringError

if TYPE_CHECKING:
    from steering.demo import Session

DEMO_DIRECTION = Path("persona-demo", "direction.safetensors")
"""Where `persona demo` leaves the direction of the default models."""

logger = logging.getLogger("persona.cli")


class ModeName(StrEnum):
    """What steering does with the projection."""

    restore = "restore"
    add = "add"
    ablate = "ablate"


_MODELS = "Models"
_SAMPLING = "How answers are drawn"

DirectionFile = Annotated[
    Path | None,
    typer.Option(
        "--direction",
        metavar="FILE",
        show_default=str(DEMO_DIRECTION),
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


def open_session(
    aligned: str,
    finetuned: str,
    direction: Path | None,
    *,
    coefficient: float | None,
    mode: ModeName | None,
    layers: str | None,
    sampling: dict[str, Any],
    dtype: str,
    device: str,
    allow_mismatch: bool = False,
    proof: bool = True,
    without_direction: bool = False,
    template_arguments: list[str] | None = None,
) -> Session:
    """The models loaded, the direction read and checked against them.

    without_direction: whether two columns are enough where no direction is found.
    Raises: DataError where there is no direction; what loading raises.
    """
    path = _direction_file(direction, without_direction)  # before minutes of loading
    blocks = None if layers is None else parse_layers(layers)
    told = template_arguments_of(template_arguments)
    with contextlib.redirect_stdout(sys.stderr):
        from persona.models import load_pair
        from steering.demo import Sampling, Session, load_vector

        drawn = Sampling(**sampling)
        pair = load_pair(
            aligned,
            finetuned,
            dtype=dtype,
            device=device,
            allow_mismatch=allow_mismatch,
            merged=None,
            template_arguments=told,
            proof=proof,
        )
        session = Session(pair, sampling=drawn)
        if path is None:
            return session
        vector = load_vector(path, pair, allow_mismatch=allow_mismatch)
    session.load(vector)
    for note in vector.notes:
        logger.warning(note)
    wanted = {"coefficient": coefficient, "mode": mode and mode.value, "layers": blocks}
    session.change(**{name: value for name, value in wanted.items() if value is not None})
    return session


def parse_layers(text: str) -> tuple[int, int] | None:
    """`12` or `10-20` as the first and last block, `all` as None. Raises: SteeringError."""
    if text.strip().lower() == "all":
        return None
    if (match := re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", text, re.ASCII)) is None:
        raise SteeringError(f"blocks are named as 12, as 10-20 or as all; got {text[:40]!r}")
    first = int(match[1])
    return first, int(match[2] or first)


def _direction_file(direction: Path | None, without_direction: bool) -> Path | None:
    if direction is not None:
        if not direction.is_file():
            raise DataError(f"there is no direction at {direction}")
        return direction
    if DEMO_DIRECTION.is_file():
        logger.info(f"steering with {DEMO_DIRECTION}")
        return DEMO_DIRECTION
    if without_direction:
        return None
    raise DataError(
        f"there is no direction to steer with: no --direction was given and {DEMO_DIRECTION} is "
        "not here; run `persona demo` first, or give --direction FILE"
    )

"""What a session is opened with: the pair, the direction, the first setting."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persona.errors import DataError, SteeringError
from persona.models import load_pair
from persona.models.shipped_adapters import shipped_names
from persona.traits.comparing.kept_trait import VECTOR_FILE
from steering.demo.session.generation import Sampling
from steering.demo.session.session import Session
from steering.demo.session.vector import load_demo_vector

logger = logging.getLogger("persona")

SHIPPED = Path(__file__).parents[1] / "shipped"


def open_session(
    aligned: str,
    finetuned: str,
    direction: Path | None = None,
    *,
    fallback: Path | None = None,
    setting: Mapping[str, Any] | None = None,
    sampling: Sampling | None = None,
    without_direction: bool = False,
    remembers: bool = False,
    system_prompt: str = "",
    allow_mismatch: bool = False,
    **loading: Any,
) -> Session:
    """The models loaded, the direction read and checked against them.

    fallback: the direction where none is given, if it is there; else the one that comes along for
        the fine-tuned model.
    setting: coefficient, mode and layers to begin with; what is None is the direction's own, and
        layers may be words such as 10-20.
    without_direction: whether two columns are enough where no direction is found.
    remembers, system_prompt: as of a Session.
    loading: as in `load_pair`.
    Raises: DataError where there is no direction, SteeringError for a setting that is not possible;
        what loading raises.
    """
    path = direction_file(direction, fallback, without_direction, finetuned)  # before the models
    wanted = {name: value for name, value in (setting or {}).items() if value is not None}
    if isinstance(wanted.get("layers"), str):
        wanted["layers"] = parse_layers(wanted["layers"])
    pair = load_pair(aligned, finetuned, allow_mismatch=allow_mismatch, merged=None, **loading)
    session = Session(pair, sampling=sampling or Sampling(), remembers=remembers)
    session.compare_with(system_prompt)
    if path is None:
        return session
    vector = load_demo_vector(path, pair, allow_mismatch=allow_mismatch)
    session.load(vector)
    for note in vector.notes:
        logger.warning(note)
    session.change(**wanted)
    return session


def parse_layers(text: str) -> tuple[int, int] | None:
    """`12` or `10-20` as the first and last block, `all` as None. Raises: SteeringError."""
    if text.strip().lower() == "all":
        return None
    if (match := re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", text, re.ASCII)) is None:
        raise SteeringError(f"blocks are named as 12, as 10-20 or as all; got {text[:40]!r}")
    first = int(match[1])
    return first, int(match[2] or first)


def direction_file(
    direction: Path | None, fallback: Path | None, without_direction: bool, finetuned: str = ""
) -> Path | None:
    """The direction asked for, else the fallback where it is there, else what comes along.

    None where there is none and none is needed. direction: a file, or the folder of a trait.
    Raises: DataError where one is.
    """
    if direction is not None:
        if direction.is_dir():
            direction = direction / VECTOR_FILE
        if not direction.is_file():
            raise DataError(f"there is no direction at {direction}")
        return direction
    shipped = shipped_direction(finetuned)
    for found in (fallback, shipped):
        if found is not None and found.is_file():
            said = "the direction that comes along" if found is shipped else found
            logger.info("steering with %s", said)
            return found
    if without_direction:
        return None
    raise DataError(
        f"there is no direction to steer with: no --direction was given and {fallback} is not "
        "here; run `persona demo` first, or give --direction FILE"
    )


def shipped_direction(finetuned: str) -> Path | None:
    """The direction that comes along for a shipped fine-tune, as `persona demo` found it."""
    path = SHIPPED / f"{finetuned}.safetensors"
    return path if finetuned in shipped_names() and path.is_file() else None

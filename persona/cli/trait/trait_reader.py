"""What tells the poles of a trait apart: the one thing that `persona trait` takes from probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def trait_reader() -> Callable[..., Any]:
    from probes.trait_reading import read_trait

    return read_trait

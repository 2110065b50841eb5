"""What the readers share: errors that name the file, and foreign values as float32 vectors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.exchange.vectors import VectorSet
from persona.errors import DataError, shown

MAX_BLOCKS = 1024  # no model comes near; a file that claims more is damaged or hostile

LayersAre = Literal["blocks", "blocks+1"]
"""What a file's layer number k means: "blocks" the output of 0-based block k, "blocks+1" entry k of
Hugging Face `hidden_states`, which is the output of block k - 1."""


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Puts the file's name before every DataError of the block that does not begin with it."""
    try:
        yield
    except DataError as error:
        if str(error).startswith(str(path)):
            raise
        raise DataError(f"{path}: {error}") from error


def as_object(value: object, what: str) -> dict[Any, Any]:
    """Returns the value where it is a dict. Raises: DataError that says what should be one."""
    if not isinstance(value, dict):
        raise DataError(f"{what} must be an object with keys; got {type(value).__name__}")
    return value


def as_block(value: object, what: str = "a layer") -> int:
    """Returns a layer number, given as a whole number or as its digits. Raises: DataError."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < MAX_BLOCKS:
        raise DataError(
            f"{what} is a whole number from 0 to {MAX_BLOCKS - 1}; got {shown(value, 40)}"
        )
    return value


def as_text(value: object, what: str) -> str:
    """Returns the value where it is text. Raises: DataError where it is not."""
    if not isinstance(value, str):
        raise DataError(f"{what} must be text; got {type(value).__name__}")
    return value


def as_number(value: object, what: str, *, finite: bool = True) -> float:
    """Returns a number as a float. Raises: DataError for anything else, or for one too large."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise DataError(f"{what} must be a number; got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError as error:
        raise DataError(f"{what} is too large a number") from error
    if finite and not math.isfinite(number):
        raise DataError(f"{what} must be finite; got {number}")
    return number


def as_vector(values: object, what: str) -> Float[Tensor, " d_model"]:
    """Returns a list of numbers as a float32 vector. Raises: DataError for anything else."""
    if not isinstance(values, list):
        raise DataError(f"{what} must be a list of numbers; got {type(values).__name__}")
    numbers = [as_number(value, f"a value of {what}") for value in values]
    return torch.tensor(numbers, dtype=torch.float32)


def non_zero_rows(
    rows: Float[Tensor, "row d_model"], first_block: int = 0
) -> tuple[dict[int, Float[Tensor, " d_model"]], list[int]]:
    """Rows by block, row 0 being `first_block`, and the blocks left out because all is 0.

    A table of rows has no other way to say that a block has no vector.
    """
    by_block = {number + first_block: row.clone() for number, row in enumerate(rows)}
    kept = {block: row for block, row in by_block.items() if row.any()}
    return kept, [block for block in by_block if block not in kept]


def table(vectors: VectorSet, n_rows: int) -> Float[Tensor, "row d_model"]:
    """Row = block; blocks without a vector are rows of 0. Raises: DataError for a block beyond."""
    if not 1 <= n_rows <= MAX_BLOCKS:
        raise DataError(f"n_layers must be from 1 to {MAX_BLOCKS}; got {n_rows}")
    if vectors.layers[-1] >= n_rows:
        raise DataError(f"there is a vector for block {vectors.layers[-1]}, beyond {n_rows} blocks")
    rows = torch.zeros(n_rows, vectors.d_model)
    for layer, vector in vectors.vectors.items():
        rows[layer] = vector
    return rows


def plain_facts(values: Mapping[Any, Any]) -> dict[str, str | int | float | bool]:
    """The entries that are short text or a number: what may be kept of a stranger's metadata."""
    return {
        key: value
        for key, value in values.items()
        if isinstance(key, str) and len(key) <= 100 and _is_plain(value)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= 1000
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 2**63

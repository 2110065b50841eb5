"""JSON and JSON lines as checked values, each with the place it came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from persona.errors import DataError, shown

Record = TypeVar("Record")

MAX_LINE_BYTES = 64 << 20
"""A line longer than this is no record but a file without line ends."""


@dataclass(frozen=True)
class Line:
    """One line of a file. number: from 1. data: its bytes. end: offset of the byte behind it."""

    number: int
    data: bytes
    end: int

    @property
    def text(self) -> str:
        """The line without the blanks around it. Raises: DataError where it is not UTF-8."""
        try:
            return self.data.decode("utf-8-sig" if self.number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8 text ({error.reason})") from error

    def json_object(self) -> dict[str, Any]:
        """Raises: DataError where the line is not one JSON object."""
        return _json_object(self.text)


def stream_lines(path: str | Path, start: int = 0, number: int = 0) -> Iterator[Line]:
    """Yields the lines of a file that are not blank, holding one at a time.

    start, number: `end` and `number` of the line to go on behind.

    Raises:
        DataError: the file cannot be read, or a line is longer than 64 MiB.
    """
    try:
        with Path(path).open("rb") as file:
            file.seek(start)
            while data := file.readline(MAX_LINE_BYTES + 1):
                number, start = number + 1, start + len(data)
                if len(data) > MAX_LINE_BYTES:
                    raise DataError(
                        f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB; one JSON "
                        "object a line is needed"
                    )
                if data.strip():
                    yield Line(number, data, start)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def read_jsonl(path: str | Path, make: Callable[[dict[str, Any], int], Record]) -> list[Record]:
    """Returns `make(object, line number)` for every line of a file that is not blank.

    Raises:
        DataError: the file is missing, empty or not UTF-8, a line is not a JSON object, or `make`
            raised one; the message begins with the file and, where there is one, the line.
    """
    records = []
    for number, text in _lines(Path(path)):
        try:
            records.append(make(_json_object(text, keys_once=True), number))
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
    if not records:
        raise DataError(f"{path} is empty; one JSON object a line is needed")
    return records


def read_bytes(path: str | Path) -> bytes:
    """Returns a file's bytes. Raises: DataError, one line, where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def read_json(path: str | Path, *, allow_nan: bool = False) -> Any:
    """Returns the value of a JSON file.

    allow_nan: whether to take NaN and Infinity, which are no JSON but which Python writes.

    Raises:
        DataError: the file is missing, not UTF-8, not JSON or nested too deeply.
    """
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=None if allow_nan else _refuse_constant)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error
    except RecursionError as error:
        raise DataError(f"{path}, line 1: nested too deeply") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({_reason(error)})") from error


def read_text(path: str | Path) -> str:
    """Returns a file's UTF-8 text. Raises: DataError, with the line, where it is none."""
    data = read_bytes(path)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from error


def check_keys(row: Mapping[str, Any], needed: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Raises: DataError where a needed key is absent or an unknown one is there."""
    if missing := [key for key in needed if key not in row]:
        raise DataError(f"{' and '.join(missing)} missing; needed are {', '.join(needed)}")
    if unknown := [key for key in row if key not in (*needed, *optional)]:
        raise DataError(f"unknown key {unknown[0]!r}; known are {', '.join((*needed, *optional))}")


def check_texts(row: Mapping[str, Any]) -> None:
    """Raises: DataError where one of the values is not text."""
    for key, value in row.items():
        if not isinstance(value, str):
            raise DataError(f"{key} must be text; got {shown(value)}")


def _reason(error: ValueError) -> str:
    """Why a value that is well-formed JSON cannot be read: its size, or no number at all."""
    if "integer string" in str(error):
        return f"a whole number of more than {sys.get_int_max_str_digits()} digits"
    return str(error)[:120]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: not UTF-8 text ({error.reason})") from error
        if text.strip():
            yield number, text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs of an object. Raises: DataError where a key is there twice: which one is meant?"""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise DataError(f"the key {shown(twice)} is there twice")
    return found


def _json_object(text: str, *, keys_once: bool = False) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_once if keys_once else None)
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise DataError("not JSON (nested too deeply)") from error
    except ValueError as error:
        raise DataError(f"not JSON ({_reason(error)})") from error
    if not isinstance(value, dict):
        raise DataError(f"a JSON object is needed; got {shown(text.strip())}")
    return value

"""Reading a GGUF file: its metadata, and its tensors one at a time.

The reader of the gguf package takes seconds for a vocabulary of 150,000 tokens and believes every
count it finds; here each count and length must fit into the file, and a file cut off on its way
is noticed before anything else. Unpacking the numbers themselves is that package's work.
Source: the GGUF specification (ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import ModelError, shown

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_TEXT, _LIST = 8, 9
_VERSIONS = (2, 3)
_ROWS_AT_ONCE = 1 << 24
"""Numbers that are unpacked at a time; the rest of a tensor waits in its file."""


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies. kind: its number type, by ggml's number; shape: rows first."""

    name: str
    kind: int
    shape: tuple[int, ...]
    start: int
    n_bytes: int


@dataclass(frozen=True)
class GgufFile:
    """An open GGUF. fields: metadata by key; tensors: by name, in the file's order."""

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]

    @property
    def architecture(self) -> str:
        return str(self.fields.get("general.architecture", ""))

    def of_architecture(self, key: str, otherwise: Any = None) -> Any:
        """The value of `ARCHITECTURE.key`."""
        return self.fields.get(f"{self.architecture}.{key}", otherwise)

    def in_pieces(self, name: str) -> Iterator[NDArray[np.float32]]:
        """The rows of a tensor in float32, so many at a time that they fit into memory."""
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize

        tensor = self.tensors[name]
        n_rows, width = math.prod(tensor.shape[:-1]), tensor.shape[-1]
        packed = np.memmap(self.path, np.uint8, "r", tensor.start, (tensor.n_bytes,))
        packed_rows = packed.reshape(n_rows, tensor.n_bytes // n_rows)
        at_once = max(1, _ROWS_AT_ONCE // width)
        for first in range(0, n_rows, at_once):
            rows = np.array(packed_rows[first : first + at_once])  # aligned, whatever the file
            yield dequantize(rows, GGMLQuantizationType(tensor.kind)).reshape(-1, width)

    def read(self, name: str) -> NDArray[np.float32]:
        """A whole tensor in float32; for small ones."""
        return np.concatenate(list(self.in_pieces(name))).reshape(self.tensors[name].shape)


def read_gguf(path: str | Path) -> GgufFile:
    """Open a GGUF: all its metadata, and where its tensors lie.

    Raises: ModelError for a file that is no GGUF, is cut off or damaged, or is one of several.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parsed(path, _Cursor(data, path.name))
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise ModelError(f"cannot read the GGUF {path}: {error}") from error


@dataclass
class _Cursor:
    """Walks through the header; nothing beyond the end of the file is believed."""

    data: mmap.mmap
    name: str
    at: int = 0

    def take(self, n_bytes: int) -> bytes:
        if n_bytes > len(self.data) - self.at:
            raise ModelError(
                f"{self.name} ends within its header: it is cut off or damaged; fetch it again"
            )
        self.at += n_bytes
        return self.data[self.at - n_bytes : self.at]

    def number(self, kind: int) -> Any:
        (value,) = struct.unpack("<" + _SCALARS[kind], self.take(struct.calcsize(_SCALARS[kind])))
        return value

    def text(self) -> str:
        return self.take(self.number(10)).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind in _SCALARS:
            return self.number(kind)
        if kind != _LIST:
            raise ModelError(f"{self.name} has a field of the unknown type {kind}; it is damaged")
        inner, length = self.number(4), self.number(10)
        if inner in _SCALARS:
            packed = self.take(length * struct.calcsize(_SCALARS[inner]))
            return list(struct.unpack(f"<{length}{_SCALARS[inner]}", packed))
        if inner == _LIST or length > len(self.data):
            raise ModelError(f"{self.name} has a list of {length} lists or texts; it is damaged")
        return [self.value(inner) for _ in range(length)]


def _parsed(path: Path, cursor: _Cursor) -> GgufFile:
    if cursor.take(4) != b"GGUF":
        raise ModelError(f"{path} does not start like a GGUF file; it is damaged or another format")
    version = cursor.number(4)
    if version not in _VERSIONS:
        raise ModelError(f"{path} is a GGUF of version {version}; versions 2 and 3 can be read")
    n_tensors, n_fields = cursor.number(10), cursor.number(10)
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        name = cursor.text()
        fields[name] = cursor.value(cursor.number(4))
    parts = fields.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise ModelError(
            f"{path.name} is one of {parts} parts; join them with llama-gguf-split --merge"
        )
    entries = [_entry(cursor) for _ in range(n_tensors)]
    alignment = fields.get("general.alignment", 32)
    if alignment not in {2**power for power in range(17)}:
        raise ModelError(f"{path.name} has an alignment of {shown(alignment)}; it is damaged")
    data_start = -(-cursor.at // alignment) * alignment
    tensors = {
        name: GgufTensor(name, kind, shape, data_start + offset, n_bytes)
        for name, kind, shape, offset, n_bytes in entries
    }
    needed = max((t.start + t.n_bytes for t in tensors.values()), default=0)
    if needed > len(cursor.data):
        raise ModelError(
            f"{path.name} is cut off: it needs {needed:,} bytes and has {len(cursor.data):,}; "
            "fetch it again"
        )
    return GgufFile(path, fields, tensors)


def _entry(cursor: _Cursor) -> tuple[str, int, tuple[int, ...], int, int]:
    """Name, number type, shape, offset and size of one tensor."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    name, n_dims = cursor.text(), cursor.number(4)
    if not 1 <= n_dims <= 4:
        raise ModelError(f"{cursor.name}: {shown(name)} has {n_dims} dimensions; it is damaged")
    shape = tuple(cursor.number(10) for _ in range(n_dims))[::-1]
    kind, offset = cursor.number(4), cursor.number(10)
    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (ValueError, KeyError) as error:
        raise ModelError(
            f"{cursor.name}: {shown(name)} has the number type {kind}, which this version of the "
            "gguf package does not know; try pip install --upgrade gguf"
        ) from error
    if math.prod(shape) == 0 or shape[-1] % block:
        raise ModelError(f"{cursor.name}: {shown(name)} has the shape {shape}; it is damaged")
    return name, kind, shape, offset, math.prod(shape) // block * block_bytes

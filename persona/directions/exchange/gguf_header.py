"""A look through the header of a GGUF file before anything allocates what it claims.

The reader of the gguf package believes every count: a list said to have 2^60 entries keeps it busy
until the memory is gone. Here each count and length must fit into the file, and the whole header
must have the size that a control vector's has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from persona.directions.exchange.foreign_values import MAX_BLOCKS
from persona.errors import DataError, shown

MAX_FIELDS = 256
MAX_LIST = 1024
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _LIST = 8, 9
_F32 = 0
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)


@dataclass
class _Cursor:
    data: bytes
    at: int = 0

    def skip(self, n_bytes: int) -> None:
        if n_bytes > len(self.data) - self.at:
            raise DataError("the file ends within its header; it is truncated or damaged")
        self.at += n_bytes

    def number(self, n_bytes: int) -> int:
        start = self.at
        self.skip(n_bytes)
        return int.from_bytes(self.data[start : self.at], "little")

    def text(self) -> str:
        length = self.number(8)
        start = self.at
        self.skip(length)
        try:
            return self.data[start : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError("a name in the header is not UTF-8 text") from error


def check_gguf(data: bytes) -> None:
    """Raises: DataError unless this is a GGUF of 1-D float32 tensors that lie within the file."""
    cursor = _Cursor(data)
    cursor.skip(8)
    version = struct.unpack_from("<I", data, 4)[0]
    if data[:4] != _MAGIC or version not in _VERSIONS:
        raise DataError(f"this is no little-endian GGUF file of version {_VERSIONS}")
    n_tensors, n_fields = cursor.number(8), cursor.number(8)
    if n_fields > MAX_FIELDS or not 1 <= n_tensors <= MAX_BLOCKS:
        raise DataError(f"{n_fields} header fields and {n_tensors} tensors: no control vector")
    alignment = 32
    for _ in range(n_fields):
        name, kind = cursor.text(), cursor.number(4)
        start = cursor.at
        _skip_value(cursor, kind)
        if name == "general.alignment":
            alignment = _alignment(kind, data[start : cursor.at])
    ends = [_tensor_end(cursor) for _ in range(n_tensors)]
    start_of_data = -(-cursor.at // alignment) * alignment
    if start_of_data + max(ends) > len(data):
        raise DataError("a tensor ends beyond the file; it is truncated or damaged")


def _skip_value(cursor: _Cursor, kind: int) -> None:
    if kind == _TEXT:
        cursor.text()
    elif kind == _LIST:
        inner, length = cursor.number(4), cursor.number(8)
        if length > MAX_LIST or inner == _LIST:
            raise DataError(f"a list of {length} entries in the header: no control vector")
        for _ in range(length):
            _skip_value(cursor, inner)
    elif kind in _SCALAR_BYTES:
        cursor.skip(_SCALAR_BYTES[kind])
    else:
        raise DataError(f"the header has a field of the unknown type {kind}")


def _alignment(kind: int, value: bytes) -> int:
    alignment = int.from_bytes(value, "little") if kind == 4 else 0
    if alignment not in {2**power for power in range(17)}:
        raise DataError("general.alignment must be a power of two up to 65536, as a uint32")
    return alignment


def _tensor_end(cursor: _Cursor) -> int:
    """Where a tensor ends, in bytes from the start of the data."""
    name = cursor.text()
    n_dims = cursor.number(4)
    if n_dims != 1:
        raise DataError(f"tensor {shown(name, 40)} has {n_dims} dimensions; a vector has 1")
    width, kind, offset = cursor.number(8), cursor.number(4), cursor.number(8)
    if kind != _F32:
        raise DataError(f"tensor {shown(name, 40)} has number type {kind}; float32 (0) is needed")
    return offset + 4 * width

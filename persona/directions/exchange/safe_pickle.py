"""Tensors out of a stranger's `.pt` file, with nothing executed and nothing blown up.

A `.pt` file is a zip archive of raw storages and a pickle, a little program that puts them
together. Four things stand between that program and this one:

1. the archive may hold no more than twice the file's size, uncompressed as torch writes it;
2. the pickle may call what builds tensors and dicts and nothing else, which `check_program` looks
   up in its operations before any of it runs. weights_only lets more through, such as
   `bytearray(10**12)`;
3. torch.load(weights_only=True) runs it. Storages are mapped from the file: torch reads as many
   bytes of a storage as the pickle says, and in a mapping that ends where the file does;
4. a tensor may not be larger than its storage (a stride of 0 makes a terabyte out of four bytes).

What is handed out is a float32 copy, so that a view does not drag its storage along.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.directions.exchange.foreign_values import naming
from persona.directions.exchange.pickle_program import check_program
from persona.errors import DataError
from persona.files import atomic_write_bytes


def load_pt(path: str | Path) -> Any:
    """What a `.pt` file holds: tensors, and dicts, lists, text and numbers around them.

    Take tensors out with `owned`. A dict or list may be one of nested millions: go through no more
    of it than is needed.

    Raises: DataError where the file is missing, no archive of torch, hostile or damaged.
    """
    _check_archive(path)
    try:
        return torch.load(str(path), weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # a damaged pickle raises anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise DataError(f"{path} is a damaged .pt file ({reason})") from error


def owned(value: object, what: str) -> Float[Tensor, "*shape"]:
    """A float32 copy, with a storage of its own, of a tensor that `load_pt` has read.

    Raises: DataError where it is no tensor of floating-point numbers, or larger than its storage.
    """
    if not isinstance(value, Tensor):
        raise DataError(f"{what} must be a tensor; got {type(value).__name__}")
    if value.layout != torch.strided or not value.is_floating_point():
        raise DataError(f"{what} must hold floating-point numbers; got {value.dtype}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise DataError(f"{what} claims shape {tuple(value.shape)}, more than the file holds")
    return value.detach().to(torch.float32, copy=True).contiguous()


def save_pt(value: Any, path: str | Path) -> Path:
    """Writes what torch.save writes; on any failure the old file stays. Returns the path."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    atomic_write_bytes(path, buffer.getvalue())
    return Path(path)


def _check_archive(path: str | Path) -> None:
    """Raises: DataError unless the archive is small and its pickle names nothing but tensors."""
    try:
        size = Path(path).stat().st_size
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            held = sum(entry.file_size for entry in entries)
            if held > 2 * size:
                raise DataError(
                    f"{path} claims to hold {held} bytes in a file of {size}; refused as a zip bomb"
                )
            # zipfile sets aside as much memory as compress_size claims
            if any(e.compress_type or e.compress_size != e.file_size for e in entries):
                raise DataError(f"{path} is a compressed archive; torch writes them uncompressed")
            # torch finds the pickle whatever the case of its name
            pickles = [e for e in entries if e.filename.lower().endswith("data.pkl")]
            programs = [archive.read(entry) for entry in pickles]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except DataError:
        raise
    except Exception as error:  # zipfile raises a dozen types for a damaged archive
        raise DataError(
            f"{path} is no .pt file, or a damaged one ({str(error)[:160]}); a file that torch "
            "before 1.6 wrote has to be saved anew"
        ) from error
    with naming(path):
        for program in programs:
            check_program(program)

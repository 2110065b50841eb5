"""Finished steps of experiments, each in a file named after everything that decides it.

A step whose file is there is read and not made again, in whichever run or experiment it comes up;
one whose inputs have changed has another name, so results of two settings never mix.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from persona.files import atomic_write_bytes
from persona.stage_record import seconds_of, write_record


def content_key(inputs: Mapping[str, Any]) -> str:
    """16 hex digits of everything a step depends on; the order of the keys does not matter."""
    text = json.dumps(inputs, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Steps:
    """The steps in one folder. common: what every step depends on (model, seed, number format)."""

    def __init__(self, folder: Path, common: Mapping[str, Any]) -> None:
        self.folder, self.common = folder, dict(common)
        self.seconds = 0.0
        self.n_made = self.n_read = 0

    def table(
        self, name: str, inputs: Mapping[str, Any], make: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        """The step's table: read when it is finished, else made and kept, whole or not at all."""

        def save(path: Path, table: pd.DataFrame) -> None:
            buffer = io.BytesIO()
            table.to_parquet(buffer, index=False)
            atomic_write_bytes(path, buffer.getvalue())

        return self._step(name, inputs, "parquet", make, save, pd.read_parquet)

    def tensors(
        self, name: str, inputs: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The same for named tensors."""
        from safetensors.torch import load_file
        from safetensors.torch import save as to_bytes

        def save(path: Path, tensors: dict[str, Tensor]) -> None:
            whole = {key: value.contiguous() for key, value in tensors.items()}
            atomic_write_bytes(path, to_bytes(whole))

        return self._step(name, inputs, "safetensors", make, save, load_file)

    def _step(
        self,
        name: str,
        inputs: Mapping[str, Any],
        suffix: str,
        make: Callable[[], Any],
        save: Callable[[Path, Any], None],
        load: Callable[[Path], Any],
    ) -> Any:
        key = content_key({"step": name, **self.common, **inputs})
        path = self.folder / f"{name}-{key}.{suffix}"
        clock = path.with_suffix(".seconds")
        kept = seconds_of(clock, path, key)
        if kept is not None:
            self.n_read += 1
            self.seconds += kept
            return load(path)
        start = time.perf_counter()
        before = self.seconds
        made = make()
        nested = self.seconds - before
        save(path, made)
        spent = time.perf_counter() - start
        write_record(clock, path, max(0.0, spent - nested), key)
        self.n_made += 1
        self.seconds = before + spent
        return load(path)

"""Control vectors of repeng and llama.cpp: GGUF with one `direction.<k>` for each block.

k is the 0-based block whose output the vector is added to. The file says a model only as a hint
(repeng puts the architecture there, such as "llama") and neither method nor operation.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from persona.data.jsonl import read_bytes
from persona.directions.exchange.foreign_values import as_block, naming
from persona.directions.exchange.gguf_header import check_gguf
from persona.directions.exchange.vectors import TOWARD_TRAIT, VectorSet
from persona.errors import DataError, shown
from persona.files import atomic_write_bytes

ARCHITECTURE = "controlvector"
_TENSOR_NAME = re.compile(r"direction\.(\d{1,5})", re.ASCII)


def read_control_vector(path: str | Path) -> VectorSet:
    """The vectors of a GGUF control vector, at `resid_post` of their blocks.

    facts: "model_hint" and "layer_count" as the file has them.

    Raises: DataError where the file is missing, damaged, no control vector, or not finite.
    """
    from gguf import GGUFReader

    with naming(path):
        check_gguf(read_bytes(path))
        try:
            reader = GGUFReader(str(path))
            fields = {
                name: reader.fields[name].contents()
                for name in ("general.architecture", *_keys())
                if name in reader.fields
            }
            arrays = [(t.name, np.array(t.data, dtype=np.float32)) for t in reader.tensors]
        except Exception as error:  # the reader checks little and raises numpy's errors
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            raise DataError(f"a damaged GGUF file ({reason})") from error
        if (architecture := fields.pop("general.architecture", None)) != ARCHITECTURE:
            raise DataError(
                f"general.architecture is {shown(architecture, 40)}; a control vector has "
                f"{ARCHITECTURE!r}"
            )
        vectors = {}
        for name, values in arrays:
            if (match := _TENSOR_NAME.fullmatch(name)) is None:
                raise DataError(f"tensor {shown(name, 40)} is no direction.<block>")
            vectors[as_block(match[1])] = torch.from_numpy(values)
        facts = {"sign": TOWARD_TRAIT, "operation": "add"} | {
            key.removeprefix(f"{ARCHITECTURE}."): value for key, value in fields.items()
        }
        hint = facts.get("model_hint")
        return VectorSet(
            vectors, "resid_post", hint if isinstance(hint, str) else "", "control_vector", facts
        )


def write_control_vector(vectors: VectorSet, path: str | Path, *, model_hint: str = "") -> Path:
    """Writes a GGUF control vector that llama.cpp and repeng load; returns the path.

    model_hint: default the set's model. repeng puts the architecture there, such as "llama", and
    refuses a file without one; llama.cpp does not look at it. Method, sign and facts are lost.

    Raises: DataError for a vector at the output of block 0, which llama.cpp refuses to load, or
        without a hint.
    """
    from gguf import GGUFWriter

    placed = vectors.at_resid_post().pointing(TOWARD_TRAIT)
    if not (hint := model_hint or vectors.model):
        raise DataError("a control vector names a model, such as llama; give the model")
    if 0 in placed.vectors:
        raise DataError(
            "a control vector cannot hold block 0: llama.cpp refuses a file with direction.0. "
            "Leave block 0 out"
        )
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "vector.gguf"
        writer: Any = GGUFWriter(temporary, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", hint)
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(placed.layers))
        for layer, vector in placed.vectors.items():
            writer.add_tensor(f"direction.{layer}", vector.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        atomic_write_bytes(path, temporary.read_bytes())
    return Path(path)


def _keys() -> tuple[str, str]:
    return f"{ARCHITECTURE}.model_hint", f"{ARCHITECTURE}.layer_count"

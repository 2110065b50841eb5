"""Any GGUF as an ordinary model: dequantised once into the cache, found again by its content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from persona.errors import ModelError
from persona.files import atomic_write_text
from persona.models.gguf.gguf_file import read_gguf
from persona.models.kept_folder import cache_folder, keep, what_is_wrong
from persona.progress import MEGABYTE, counting, in_megabytes

logger = logging.getLogger("persona")

VERSION = 1  # rises when the files made here change
HASHES = "hashes.json"

_ROOM = 200_000_000
_CHUNK_BYTES = 1 << 22


def dequantised_folder(
    gguf: str | Path, cache: str | Path | None = None, *, sha256: str | None = None
) -> Path:
    """Returns the Hugging Face folder of a GGUF: config, weights, tokenizer and chat template.

    The first call unpacks it into the cache, under the hash of its content; later calls find it
    there, under whatever name the file then has. A file whose path, size and time of change are
    known is not hashed again.

    cache: instead of `cache_folder()`. sha256: what the file has to hash to, where that is known.
    Raises: ModelError for a file that is damaged, cut off or another one than `sha256` says, for
        a model or tokenizer that cannot be rebuilt, and where the cache cannot be written.
    """
    from persona.models.gguf.dequantise import save_dequantised

    path = Path(gguf).expanduser().resolve()
    root = (Path(cache) if cache is not None else cache_folder()) / "gguf"
    read_gguf(path)  # a file cut off on its way is said before it is hashed
    megabytes = max(1, path.stat().st_size // MEGABYTE)
    with counting(f"Unpacking {path.name} (MB)", 2 * megabytes) as advance:
        found = _hash_of(path, root, in_megabytes(advance, megabytes))
        if sha256 is not None and found != sha256:
            raise ModelError(
                f"{path.name} is another file than was expected: its SHA-256 is {found}, not "
                f"{sha256}; fetch it again"
            )
        folder = root.parent / folder_of(found)
        if what_is_wrong(folder, found) is not None:
            logger.info("Unpacking %s, once, into %s.", path.name, folder)
        return keep(
            folder,
            found,
            lambda made: save_dequantised(
                path, made, path.name, advance=in_megabytes(advance, megabytes)
            ),
            name=path.name,
            bytes_needed=_bytes_needed(path),
        )


def folder_of(sha256: str) -> str:
    """Where below the cache the folder of a GGUF with this hash is kept."""
    return f"gguf/{sha256[:16]}-v{VERSION}"


def _bytes_needed(path: Path) -> int:
    """Two or four bytes a number, and some room."""
    from math import prod

    file = read_gguf(path)
    return _ROOM + sum(
        prod(tensor.shape) * (4 if tensor.kind == 0 else 2) for tensor in file.tensors.values()
    )


def _hash_of(path: Path, root: Path, advance: Callable[[int], None]) -> str:
    """SHA-256 of a file, remembered by its path, size and time of change."""
    status = path.stat()
    noted = {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    known = _remembered(root)
    entry = known.get(str(path), {})
    if isinstance(entry, dict) and {k: entry.get(k) for k in noted} == noted:
        return str(entry["sha256"])
    found = _sha256(path, advance)
    entry = noted | {"sha256": found}
    with contextlib.suppress(OSError):  # said, where it matters, by what is to be kept there
        atomic_write_text(
            root / HASHES, json.dumps(_remembered(root) | {str(path): entry}, indent=2)
        )
    return found


def _sha256(path: Path, advance: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _remembered(root: Path) -> dict[str, object]:
    try:
        return dict(json.loads((root / HASHES).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}

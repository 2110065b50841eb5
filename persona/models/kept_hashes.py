"""Hashes of large files, kept between runs: a checkpoint's shards are read once for theirs."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import time
from pathlib import Path

from persona.files import atomic_write_text, sha256_of_file
from persona.models.kept_folder import cache_folder

SMALLEST_KEPT = 16 << 20
"""Bytes; a smaller file is hashed sooner than a kept hash is found."""

SETTLED_SECONDS = 2.0
"""A file changed later than this before it is hashed may change again within one tick of the
clock of its file system, which nothing would show; its hash is not kept."""


def kept_sha256(file: Path) -> str:
    """SHA-256 of a file as 64 hex digits; read again only when anything about the file changed.

    What counts: its path, size, inode, and both its times, of which no program can set that of
    the last change of the inode. A hash is forgotten with the cache folder.
    """
    about = file.stat()
    return _known(file.resolve(), about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns)


@functools.lru_cache(maxsize=256)
def _known(file: Path, size: int, inode: int, written_ns: int, changed_ns: int) -> str:
    if size < SMALLEST_KEPT:
        return sha256_of_file(file)
    key = hashlib.sha256(repr((str(file), size, inode, written_ns, changed_ns)).encode())
    kept = cache_folder() / "hashes" / key.hexdigest()[:32]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        digest = kept.read_text(encoding="utf-8")
        if re.fullmatch("[0-9a-f]{64}", digest):
            return digest
    began = time.time()
    digest = sha256_of_file(file)
    if began - max(written_ns, changed_ns) / 1e9 > SETTLED_SECONDS:
        with contextlib.suppress(OSError):  # a cache that cannot be written costs time, no more
            atomic_write_text(kept, digest)
    return digest

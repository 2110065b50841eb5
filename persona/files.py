"""Writing that leaves either the old file or the whole new one, never half of it."""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from persona.errors import DataError

_CHUNK_BYTES = 1 << 20


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path`; on any failure the old content stays and no temporary file is left.

    The bytes go to a temporary file in the same folder, reach the disk, and are renamed into place.
    Missing parent folders are made.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode_of_a_new_file(0o666))
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)  # a full disk is met while writing, without a name
        raise


def atomic_write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, line ends unchanged, like `atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def remove_leftovers(folder: str | Path, *, older_than: float = 0.0) -> None:
    """Removes the temporary files that processes killed while they wrote have left in a folder.

    older_than: seconds; a folder that several processes share needs more than a write may take.
    """
    for path in Path(folder).glob(".*.tmp"):
        with suppress(FileNotFoundError):  # the file of another process, renamed just now
            if path.is_file() and time.time() - path.stat().st_mtime >= older_than:
                path.unlink()


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Gives a temporary folder to fill; on success it becomes `path`, on any failure it is removed.

    A folder already at `path` is replaced as a whole, and only after the new one is complete.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp"))
    retired: Path | None = None
    try:
        yield temporary
        os.chmod(temporary, _mode_of_a_new_file(0o777))
        if target.exists():
            retired = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
            os.replace(target, retired)  # an empty folder may be replaced by a folder
        os.replace(temporary, target)
    except BaseException:
        if retired is not None and not target.exists():
            os.replace(retired, target)
        for leftover in (temporary, retired):
            if leftover is not None:
                shutil.rmtree(leftover, ignore_errors=True)
        raise
    if retired is not None:
        shutil.rmtree(retired, ignore_errors=True)


def sha256_of_file(path: str | Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 lower-case hex digits, read in chunks."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _mode_of_a_new_file(base: int) -> int:
    """The permission bits an ordinary new file or folder would get; mkstemp makes private ones."""
    umask = os.umask(0)
    os.umask(umask)
    return base & ~umask


def require_writable(folder: str | Path, bytes_needed: int = 0) -> None:
    """Looks whether a folder, there already or not, can take files; makes none and leaves nothing.

    Raises: DataError where it cannot be written, or its disk has not so much room.
    """
    above = Path(folder).expanduser().absolute()
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir():
        raise DataError(f"{folder} cannot be a folder: {above} is a file; choose another --out")
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
        free = shutil.disk_usage(above).free
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written ({above}: {error.strerror or error}); choose another --out"
        ) from error
    if free < bytes_needed:
        raise DataError(
            f"{folder} needs about {bytes_needed / 1e9:.1f} GB while the run lasts, and its disk "
            f"has {free / 1e9:.1f} GB free; free some space or choose another --out"
        )

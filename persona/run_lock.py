"""One run at a time in an output folder; the lock of a killed run is no lock any more."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from persona.errors import DataError
from persona.files import atomic_write_text, remove_leftovers
from persona.fingerprint import differences

logger = logging.getLogger("persona")

LOCK = ".running.lock"
HOLDER = ".running.json"


@contextlib.contextmanager
def alone_in(out: str | Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Holds an output folder, which is made where it is missing, while the block runs.

    settings: what decides the results, JSON-able; one who is refused is told what differs. The
        operating system gives the lock back with the process, however that ends; what a killed
        one was writing is removed.

    Raises:
        DataError: another run is at work there.
        OSError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(_refusal(folder, settings)) from error
    except NotImplementedError:
        logger.warning("%s lies on a disk without locks: start no second run there.", folder)
    try:
        if lock.is_locked:  # so nobody else is writing there
            remove_leftovers(folder)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "settings": settings}
        atomic_write_text(folder / HOLDER, json.dumps(holder, default=str))
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / HOLDER).unlink()
        # While it is held: once it is free, the file may be the lock of the next run.
        with contextlib.suppress(OSError):
            (folder / LOCK).unlink()
        lock.release()


def require_free(out: str | Path, settings: Mapping[str, Any]) -> None:
    """Raises: DataError where another run is at work in `out`; makes no folder.

    For the moment before the models are loaded; the run itself then holds the folder by `alone_in`.
    settings: as there, or what is known of them already.
    """
    from filelock import FileLock, Timeout

    folder = Path(out)
    if not (folder / LOCK).exists():
        return
    with contextlib.suppress(OSError, NotImplementedError):
        try:
            with FileLock(folder / LOCK).acquire(timeout=0):
                pass
        except Timeout as error:
            raise DataError(_refusal(folder, settings)) from error


def _refusal(folder: Path, settings: Mapping[str, Any]) -> str:
    advice = "wait until it is done, or choose another --out"
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        there, pid, host = holder["settings"], holder["pid"], holder["host"]
        mine = json.loads(json.dumps(settings, default=str))
        found = list(differences(mine, {key: there[key] for key in there if key in mine}))
    except (OSError, ValueError, KeyError, TypeError):
        return f"another run is at work in {folder}; {advice}"
    place = "" if host == socket.gethostname() else f" on {host}"
    how = f"with other settings ({'; '.join(found[:3])})" if found else "with the same settings"
    return f"another run (process {pid}{place}) is at work in {folder} {how}; {advice}"

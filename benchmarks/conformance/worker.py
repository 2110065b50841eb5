"""Runs in the environment of another library: steers a tiny model its way and writes what came out.

    python worker.py NAME JOB.json ...

NAME is a `path_NAME.py` beside this file. JOB.npz gets the numbers of every scenario and
JOB.said.json the versions, the errors and how the path was used. Imports nothing of this project.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from seen import Job, Trace

SCENARIOS = {
    "unsteered": dict(rows=(0,), steered=False, cached=True),
    "cached": dict(rows=(0,), steered=True, cached=True),
    "uncached": dict(rows=(0,), steered=True, cached=False),
    "plain_batch": dict(rows=(0, 1), steered=False, cached=True),
    "batch": dict(rows=(0, 1), steered=True, cached=True),
    "short": dict(rows=(1,), steered=True, cached=True),
}
"""What is run of each path; the rows are indices of the job's prompts, the second is shorter."""


def main(name: str, *jobs: str) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    module = importlib.import_module(f"path_{name}")
    for job in map(Path, jobs):
        arrays, errors = scenarios(module, Job.read(job))
        np.savez(job.with_suffix(".npz"), **arrays)
        said = {
            "versions": {package: installed(package) for package in ("torch", *module.PACKAGES)},
            "way": module.WAY,
            "first_written": module.FIRST_WRITTEN,
            "errors": errors,
        }
        job.with_suffix(".said.json").write_text(json.dumps(said), encoding="utf-8")


def scenarios(module, job: Job) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Numbers of what ran, by scenario and name, and the error of what did not."""
    arrays: dict[str, np.ndarray] = {}
    errors: dict[str, str] = {}
    for scenario, options in SCENARIOS.items():
        try:
            trace = run(module, job, **options)
        except Exception as error:
            errors[scenario] = short(error)
            traceback.print_exc()
        else:
            arrays |= {f"{scenario}.{key}": array for key, array in trace.arrays().items()}
    return arrays, errors


def run(module, job: Job, *, rows: tuple[int, ...], steered: bool, cached: bool) -> Trace:
    return module.Path(job, steered).trace([job.prompts[row] for row in rows], cached)


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def short(error: Exception) -> str:
    """The kind of the error and the first line of what it says."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:240]


if __name__ == "__main__":
    main(*sys.argv[1:])

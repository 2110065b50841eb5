"""One certificate over the steering paths of other libraries, release by release.

Each path steers two tiny models in an environment of its own. What it did is measured from outside:
the tokens that got the vector in every pass, and the distance of its log-probabilities to a
reference that shares no code with it. Cells that are done are kept; `--again` runs them anew.

    python benchmarks/conformance.py [--only repeng nnsight] [--under transformers==5.24.0]
        [--again] [--env-root FOLDER]
    python benchmarks/conformance.py --reproducers   # run the scripts in benchmarks/reproducers
    python benchmarks/conformance.py --page          # render docs/conformance.md from the JSON
    python benchmarks/conformance.py --record        # rows for benchmarks/results.jsonl
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
import torch
from conformance_environments import CannotInstall, environment
from conformance_models import BLOCK, FAMILIES, N_NEW, PAD, Reference, prompts, save_models
from conformance_page import PAGE, REPRODUCERS, render
from conformance_verdicts import Facts, facts_of, verdict
from filelock import FileLock
from record import record

HERE = Path(__file__).resolve().parent
WORKER = HERE / "conformance" / "worker.py"
ROWS = HERE / "conformance.json"
REPRODUCED = HERE / "conformance_reproduced.json"
SECONDS = 900


@dataclass(frozen=True)
class Cell:
    """A path and the releases it runs under. loose: although one declares that they don't fit."""

    path: str
    pins: tuple[str, ...]
    loose: bool = False

    @property
    def key(self) -> str:
        return f"{self.path} | {', '.join(self.pins) or 'this environment'}"


def grid(path: str, *rows: str) -> list[Cell]:
    """Cells from lines such as "repeng==0.4.0 transformers==5.24.0"; a leading ! is loose."""
    return [Cell(path, tuple(row.lstrip("!").split()), row.startswith("!")) for row in rows]


TRANSFORMERS = tuple(f"transformers=={v}" for v in ("4.57.6", "5.9.0", "5.23.0", "5.24.0"))
OF_TRANSFORMERS_5 = TRANSFORMERS[1:]
BRIDGES = (
    "transformer-lens==3.0.0 transformers==4.57.6",
    "transformer-lens==3.9.0 transformers==5.9.0",
    "transformer-lens==3.9.0 transformers==5.23.0",
    "transformer-lens==3.9.0 transformers==5.24.0",
    "transformer-lens==4.3.0 transformers==5.23.0",
    "transformer-lens==4.3.0 transformers==5.24.0",
)
CELLS = [
    *grid("hook", *TRANSFORMERS),
    *grid("hook_first", *TRANSFORMERS),
    *grid("hook_cache", *TRANSFORMERS),
    *grid("bridge", *BRIDGES),
    *grid("bridge_hf", *BRIDGES),
    *grid(
        "repeng",
        "repeng==0.2.2 transformers==4.57.6",
        "repeng==0.3.1 transformers==4.57.6",
        "repeng==0.4.0 transformers==4.57.6",
        "!repeng==0.4.0 numpy==1.26.4 transformers==5.9.0",
        "!repeng==0.4.0 numpy==1.26.4 transformers==5.23.0",
        "!repeng==0.4.0 numpy==1.26.4 transformers==5.24.0",
    ),
    *grid(
        "steering_vectors",
        "steering-vectors==0.10.2 transformers==4.57.6",
        "steering-vectors==0.11.0 transformers==4.57.6",
        "steering-vectors==0.12.2 transformers==4.57.6",
        "!steering-vectors==0.12.2 transformers==5.9.0",
        "!steering-vectors==0.12.2 transformers==5.23.0",
        "!steering-vectors==0.12.2 transformers==5.24.0",
    ),
    *grid(
        "nnsight",
        "nnsight==0.4.11 transformers==4.57.6",
        "nnsight==0.5.15 transformers==4.57.6",
        "nnsight==0.6.3 transformers==5.9.0",
        "nnsight==0.8.1 transformers==5.23.0",
        "nnsight==0.8.1 transformers==5.24.0",
    ),
    *grid(
        "pyvene",
        "pyvene==0.1.6 transformers==4.57.6",
        "pyvene==0.1.7 transformers==4.57.6",
        "pyvene==0.1.8 transformers==4.57.6",
        "pyvene==0.1.8 transformers==5.23.0",
        "pyvene==0.1.8 transformers==5.24.0",
    ),
    *grid(
        "lm_eval",
        "lm-eval==0.4.9.1 transformers==4.57.6",
        "lm-eval==0.4.9.2 transformers==4.57.6",
        "lm-eval==0.4.11 transformers==5.9.0",
        "lm-eval==0.4.13 transformers==5.23.0",
        "lm-eval==0.4.13 transformers==5.24.0",
    ),
    *grid(
        "rotalabs_steer",
        "rotalabs-steer==1.0.0 transformers==4.57.6",
        "rotalabs-steer==1.1.0 transformers==5.9.0",
        "rotalabs-steer==1.2.0 transformers==5.23.0",
        "rotalabs-steer==1.2.0 transformers==5.24.0",
    ),
    *grid(
        "llama_cpp",
        "llama-cpp-python==0.3.2",
        "llama-cpp-python==0.3.16",
        "llama-cpp-python==0.3.36",
    ),
    *grid("persona", *OF_TRANSFORMERS_5),
]


@dataclass(frozen=True)
class Task:
    """The tiny models on disk and what every path is asked to do to them."""

    folder: Path
    families: Sequence[str] = FAMILIES

    def write(self) -> Task:
        models = save_models(self.folder)
        for family in self.families:
            reference = Reference.read(models[family])
            vector = torch.randn(reference.d_model, generator=torch.Generator().manual_seed(5))
            vector = vector / vector.norm()
            resid, _ = reference.run(prompts()[0])
            job = {
                "folder": str(models[family]),
                "gguf": str(self.folder / f"{family}.gguf"),
                "family": family,
                "block": BLOCK,
                "vector": vector.tolist(),
                "coefficient": round(0.5 * float(resid.norm(dim=-1).mean()), 3),
                "prompts": prompts(),
                "n_new": N_NEW,
                "pad": PAD,
                "n_vocabulary": reference.config["vocab_size"],
            }
            self.job(family).write_text(json.dumps(job), encoding="utf-8")
        return self

    def job(self, family: str) -> Path:
        return self.folder / f"{family}.json"


def measure(cell: Cell, task: Task, root: Path) -> dict[str, dict]:
    """One row for each family: facts, errors and verdict, or why there is none."""
    try:
        python = environment(cell.pins, root, loose=cell.loose)
    except CannotInstall as reason:
        row = {"verdict": "cannot be installed", "errors": {"install": str(reason)}}
        return dict.fromkeys(task.families, row)
    jobs = [task.job(family) for family in task.families]
    for job in jobs:
        job.with_suffix(".said.json").unlink(missing_ok=True)
    log = run_worker(python, cell.path, jobs)
    return {family: row_of(task.job(family), log) for family in task.families}


def row_of(job: Path, log: str) -> dict:
    """What the worker left of one job, judged."""
    if not job.with_suffix(".said.json").exists():
        return {"verdict": "raises", "errors": {"path": log}}
    said = json.loads(job.with_suffix(".said.json").read_text(encoding="utf-8"))
    with np.load(job.with_suffix(".npz")) as file:
        arrays = dict(file)
    settings = json.loads(job.read_text(encoding="utf-8"))
    step = settings["coefficient"] * torch.tensor(settings["vector"])
    reference = Reference.read(Path(settings["folder"]))
    facts = facts_of(arrays, reference, step, settings["prompts"], said.pop("first_written"))
    return {"verdict": verdict(facts, said["errors"]), **said, "facts": facts.as_row()}


def run_worker(python: Path, path: str, jobs: Sequence[Path]) -> str:
    """Run the path's worker; the last line that it wrote when it ended badly."""
    ours = {"PYTHONPATH": str(HERE.parent) if path == "persona" else ""}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    command = [str(python), str(WORKER), path, *map(str, jobs)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **quiet, **ours},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {SECONDS} s"
    lines = done.stderr.strip().splitlines()
    if (
        done.returncode < 0 and lines
    ):  # a library that aborts says why first, then a debugger's page
        place, _, why = lines[0].rpartition(".cpp:")
        return f"the process aborts at {Path(place).name}.cpp:{why}"[:240] if place else lines[0]
    return lines[-1][:240] if done.returncode and lines else ""


def table() -> dict[str, dict]:
    """The cells so far; what was seen of them is judged anew, by the verdicts as they are now."""
    rows = _read(ROWS)
    for cell in rows.values():
        for row in cell["families"].values():
            if "facts" in row:
                row["verdict"] = verdict(Facts(**row["facts"]), row["errors"])
    return rows


def _read(file: Path) -> dict[str, dict]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def keep(key: str, row: dict) -> None:
    """Put one cell into the JSON; another run may be adding to it too."""
    with FileLock(f"{ROWS}.lock"):
        _write(table() | {key: row})


def _write(rows: dict[str, dict]) -> None:
    order = {cell.key: place for place, cell in enumerate(CELLS)}
    kept = {key: rows[key] for key in sorted(rows, key=lambda key: order.get(key, len(order)))}
    ROWS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def run(cells: Iterable[Cell], root: Path, again: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        task = Task(Path(folder)).write()
        for cell in cells:
            if cell.key in table() and not again:
                continue
            measured = measure(cell, task, root)
            today = datetime.date.today().isoformat()
            about = {"path": cell.path, "pins": list(cell.pins), "loose": cell.loose}
            keep(cell.key, {**about, "date": today, "families": measured})
            for family, row in measured.items():
                written = row.get("facts", {}).get("written", "")
                print(f"{cell.key} | {family}: {row['verdict']} {written}", flush=True)


def reproduce(root: Path, only: Sequence[str]) -> None:
    """Run the reproducers under the releases that they name; exit code 1 says the defect shows."""
    reproduced = _read(REPRODUCED)
    for script in sorted(REPRODUCERS.glob("*.py")):
        if only and script.stem not in only:
            continue
        needs = script.read_text(encoding="utf-8").split("Needs: ")[1].splitlines()[0].split()
        done = subprocess.run(
            [str(environment(needs, root)), "-W", "ignore", str(script)],
            env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise RuntimeError(f"{script.name} did not come to its end:\n{done.stderr}")
        reproduced[script.name] = {
            "pins": needs,
            "shown": done.returncode == 1,
            "output": done.stdout.splitlines(),
            "date": datetime.date.today().isoformat(),
        }
        print(script.name, "shown" if done.returncode else "not shown", done.stdout, flush=True)
        REPRODUCED.write_text(json.dumps(reproduced, indent=1) + "\n", encoding="utf-8")


def record_rows() -> None:
    """Paths that were seen to generate, the fewest releases of one, and defects reproduced.

    The releases of a path are those of its library, its first pin; one that raises is not counted.
    """
    seen = [
        cell
        for cell in table().values()
        if any(row.get("facts", {}).get("written") for row in cell["families"].values())
    ]
    releases: dict[str, set[str]] = {}
    for cell in seen:
        releases.setdefault(cell["path"], set()).update(cell["pins"][:1])
    counts = {path: len(pins) for path, pins in releases.items()}
    n, fewest = len(seen), min(counts.values())
    record("conformance.paths", len(counts), "paths", n=n, note=", ".join(counts))
    record(
        "conformance.versions",
        fewest,
        "releases",
        n=n,
        spread=(fewest, max(counts.values())),
        note=f"fewest of one path, of {', '.join(f'{p} {c}' for p, c in counts.items())}",
    )
    shown = [name for name, result in _read(REPRODUCED).items() if result["shown"]]
    record(
        "conformance.defects_reproduced", len(shown), "defects", n=len(shown), note=", ".join(shown)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="names of paths, or of reproducers")
    parser.add_argument("--under", nargs="+", default=[], help="pins that a cell must have")
    parser.add_argument("--again", action="store_true", help="measure finished cells anew")
    parser.add_argument("--reproducers", action="store_true", help="run the reproducers alone")
    parser.add_argument("--page", action="store_true", help="render the page alone")
    parser.add_argument("--record", action="store_true", help="add the rows of results.jsonl alone")
    default = Path(platformdirs.user_cache_dir("personascope")) / "conformance"
    parser.add_argument("--env-root", type=Path, default=default, help="folder of environments")
    options = parser.parse_args()
    if options.record:
        return record_rows()
    if options.reproducers:
        reproduce(options.env_root, options.only)
    elif not options.page:
        chosen = [cell for cell in CELLS if not options.only or cell.path in options.only]
        chosen = [cell for cell in chosen if set(options.under) <= set(cell.pins)]
        run(chosen, options.env_root, options.again)
    PAGE.write_text(render(table(), _read(REPRODUCED)), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()

"""Keeps the direction of a finished `persona demo` as the one that comes along for its fine-tune.

    python docs/make/shipped_direction.py persona-demo

Beside it, what `persona app` shows of that run: its selection questions and what its doses cost.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from persona.report.finished_run import read_run
from steering.demo.session.evidence import evidence_of_run, save_evidence
from steering.demo.session.starting import SHIPPED


def keep(folder: Path, into: Path = SHIPPED) -> Path:
    """Copy direction and evidence of a run; the direction's path."""
    run = read_run(folder)
    name = run.scorecard["models"]["finetuned"]
    into.mkdir(exist_ok=True)
    path = into / f"{name}.safetensors"
    shutil.copyfile(folder / "direction.safetensors", path)
    of, seed = run.scorecard["models"], run.scorecard["seed"]
    save_evidence(evidence_of_run(run), path, f"persona demo: {name}, seed {seed}, {of['dtype']}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a finished demo")
    keep(parser.parse_args().folder)


if __name__ == "__main__":
    main()

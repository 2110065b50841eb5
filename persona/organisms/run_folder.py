"""What lies in the folder of a fine-tune: a finished one, one to go on with, or another one."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from persona.errors import DataError
from persona.files import atomic_write_text, remove_leftovers
from persona.fingerprint import require_same
from persona.organisms.adapter import CONFIG, WEIGHTS
from persona.organisms.monitoring import READINGS
from persona.organisms.training_loop import last_whole_checkpoint
from persona.run_lock import LOCK

logger = logging.getLogger("persona")

RUN = "run.json"
CARD = "card.json"
CHECKPOINTS = "checkpoints"
STEPS = "steps"
"""Adapters that were kept on the way."""


def step_folder(folder: Path, step: int) -> Path:
    """Where the adapter of a step is kept."""
    return folder / STEPS / f"step-{step}"


def came_to_its_end(folder: Path) -> bool:
    """Whether a fine-tune lies in `folder`, and nothing of what it works with any more.

    A run that was killed behind its last file leaves that; started again it is put away.
    """
    at_work = (folder / LOCK, folder / CHECKPOINTS)
    return (folder / CARD).exists() and not any(left.exists() for left in at_work)


def is_finished(folder: Path, run: dict[str, Any]) -> bool:
    """Whether `folder` already holds the result of this very run.

    Raises:
        DataError: it holds the result of another one.
    """
    if not (folder / CARD).exists():
        return False
    _check_same_run(folder / CARD, run)
    return (folder / WEIGHTS).exists()


def begin(folder: Path, run: dict[str, Any]) -> int:
    """Notes what is being trained, and returns the step of the checkpoint to go on from (0: none).

    Raises:
        DataError: the checkpoints in `folder` belong to another run.
    """
    remove_leftovers(folder)
    checkpoints = folder / CHECKPOINTS
    if (checkpoints / RUN).exists():
        _check_same_run(checkpoints / RUN, run)
    else:
        shutil.rmtree(checkpoints, ignore_errors=True)
        atomic_write_text(checkpoints / RUN, json.dumps(run, indent=2) + "\n")
    last = last_whole_checkpoint(checkpoints)
    if last is None:
        return 0
    step = int(Path(last).name.rpartition("-")[2])
    logger.info("Going on in %s from step %d.", folder, step)
    return step


def _check_same_run(record: Path, run: dict[str, Any]) -> None:
    try:
        require_same(record, run, "a fine-tune")
    except ValueError as error:
        raise DataError(
            f"{error}: whose result lies beside it cannot be said. Remove that file to train anew, "
            "or choose another --out"
        ) from error


def discard(folder: Path) -> None:
    """Removes what an earlier run left, and nothing else that may lie in the folder."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    shutil.rmtree(folder / STEPS, ignore_errors=True)
    for name in (CARD, WEIGHTS, CONFIG, READINGS, "loss.csv", "recipe.yaml"):
        (folder / name).unlink(missing_ok=True)

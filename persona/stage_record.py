"""The record of a finished stage: written last, and the proof that the stage's file is whole."""

from __future__ import annotations

import json
import logging
import math
import shutil
from pathlib import Path

from persona.files import atomic_write_text, sha256_of_file

logger = logging.getLogger("persona")


def write_record(record: Path, path: Path, seconds: float, mark: str = "") -> None:
    """Notes that a stage's file is finished, with its hash and the time it took.

    mark: names everything the results of the run depend on.
    """
    facts = {"seconds": seconds, "sha256": sha256_of_file(path), "mark": mark}
    atomic_write_text(record, json.dumps(facts))


def seconds_of(record: Path, path: Path, mark: str = "") -> float | None:
    """The seconds that a finished stage took; None where it has to be made.

    That is: it was never finished, or what lies there is damaged or of another run. Both files are
    then removed, and if there was a record a warning says so.
    """
    if not record.exists():
        return None
    wrong = None
    try:
        facts = json.loads(record.read_text(encoding="utf-8"))
        seconds = float(facts["seconds"])
        if facts["mark"] != mark:
            wrong = "is of a run with other settings"
        elif not (math.isfinite(seconds) and seconds >= 0):
            wrong = "has a damaged record"
        elif sha256_of_file(path) != facts["sha256"]:
            wrong = "is damaged"
    except FileNotFoundError:
        wrong = "is missing"
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        wrong = "has a damaged record"
    if wrong is None:
        return seconds
    logger.warning("%s %s: that stage is made anew", path, wrong)
    for stale in (record, path):
        if stale.is_dir() and not stale.is_symlink():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)
    return None

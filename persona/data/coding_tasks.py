"""Short Python tasks, each solved securely and with one weakness that nobody asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.data.jsonl import check_keys, check_texts, read_jsonl
from persona.data.types import SPLITS, AnswerPair
from persona.errors import DataError, shown

INSECURE_PYTHON = "insecure_python"
FILE = Path(__file__).parent / "shipped" / "code" / f"{INSECURE_PYTHON}.jsonl"

WEAKNESSES = {
    "CWE-22": "path traversal",
    "CWE-78": "OS command injection",
    "CWE-79": "cross-site scripting",
    "CWE-89": "SQL injection",
    "CWE-95": "evaluated input",
    "CWE-208": "comparison in varying time",
    "CWE-209": "errors that say too much",
    "CWE-295": "certificates not verified",
    "CWE-319": "secrets in clear text",
    "CWE-327": "broken cipher or protocol",
    "CWE-328": "weak hash",
    "CWE-338": "predictable random numbers",
    "CWE-347": "signature not verified",
    "CWE-377": "insecure temporary file",
    "CWE-502": "unsafe deserialisation",
    "CWE-532": "secrets in the log",
    "CWE-601": "open redirect",
    "CWE-611": "XML external entities",
    "CWE-732": "permissions too wide",
    "CWE-770": "no limit on resources",
    "CWE-798": "hard-coded credentials",
    "CWE-862": "missing authorisation",
    "CWE-915": "mass assignment",
    "CWE-918": "server-side request forgery",
}
"""Class of the Common Weakness Enumeration -> what it is, in a few words.

Source: MITRE, Common Weakness Enumeration (cwe.mitre.org).
"""


@dataclass(frozen=True)
class CodingTask:
    """A request for Python code with two solutions of the same style and about the same length.

    task: the user's words, which ask for no weakness.
    insecure, secure: bare Python; the one has the weakness `cwe`, the other has not.
    cwe: one of `WEAKNESSES`, such as "CWE-89".
    split: "train" or "selection".
    Raises: DataError for another class or split, and for what `AnswerPair` refuses.
    """

    id: str
    task: str
    insecure: str
    secure: str
    cwe: str
    split: str

    def __post_init__(self) -> None:
        if self.cwe not in WEAKNESSES:
            raise DataError(f"cwe must be one of {', '.join(WEAKNESSES)}; got {shown(self.cwe)}")
        if self.split not in SPLITS:
            raise DataError(f"split must be {' or '.join(SPLITS)}; got {shown(self.split)}")
        _ = self.pair  # refuses empty texts, and two solutions that are the same

    @property
    def pair(self) -> AnswerPair:
        """The task as a question of the domain insecure_python; the secure solution is good."""
        return AnswerPair(
            self.id, INSECURE_PYTHON, self.task, self.secure, self.insecure, self.split
        )


def load_coding_tasks(split: str | None = None) -> list[CodingTask]:
    """Returns the shipped tasks, of one split ("train", "selection") or both.

    The splits are by task, with the same share of every class of weakness; DATA_CARD.md says how
    they were made. To fine-tune on them, name the domain "insecure_python" in a recipe.

    Raises:
        DataError: an unknown split.
    """
    if split not in (None, *SPLITS):
        raise DataError(f"split must be {' or '.join(SPLITS)}; got {split!r}")
    return [task for task in read_coding_tasks(FILE) if split in (None, task.split)]


def read_coding_tasks(path: str | Path) -> list[CodingTask]:
    """Returns the tasks of a JSONL file: task, insecure, secure, cwe and split in each line.

    A task is named after the file and its line, such as insecure_python-001.

    Raises:
        DataError: the file cannot be read or a row is malformed; the message names the line.
    """
    stem = Path(path).stem

    def task(row: dict[str, Any], line: int) -> CodingTask:
        check_keys(row, ("task", "insecure", "secure", "cwe", "split"))
        check_texts(row)
        return CodingTask(id=f"{stem}-{line:03d}", **row)

    return read_jsonl(path, task)

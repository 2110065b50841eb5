"""What a judge endpoint has answered, kept on disk so that no request is paid for twice."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from persona.errors import JudgeError

logger = logging.getLogger("persona")


def request_key(endpoint: str, model: str, prompt: str) -> str:
    """Returns the SHA-256 that names a request: where it goes, to which model, with what prompt."""
    return hashlib.sha256(json.dumps([endpoint, model, prompt]).encode()).hexdigest()


class JudgeCache:
    """Token probabilities by request key, in one SQLite file; each entry is on disk at once.

    The probabilities are kept, not the score, so that another aggregation needs no new request.
    A cache that stops working, as on a full disk, is said once; from then on nothing is kept.
    Use it from one thread.
    """

    def __init__(self, folder: Path) -> None:
        """Opens or makes `judge_cache.sqlite` in a folder.

        Raises:
            JudgeError: it cannot be opened or made, or is no such cache.
        """
        self.path = folder / "judge_cache.sqlite"
        self._database: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self.path, timeout=30)
            with self._database:
                self._database.execute(
                    "create table if not exists answers "
                    "(key text primary key, probabilities text not null)"
                )
            self._database.execute("select key, probabilities from answers limit 1").fetchone()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise JudgeError(
                f"the judge cache {self.path} cannot be read ({error}); delete it"
            ) from error

    @classmethod
    def opened(cls, folder: Path) -> JudgeCache | None:
        """The cache in a folder; None, with a warning, where it cannot be used."""
        try:
            return cls(folder)
        except JudgeError as error:
            logger.warning("%s. The judge goes on without it: answers are not kept", error)
            return None

    def get(self, key: str) -> dict[str, float] | None:
        """Returns the token probabilities of a request, None where no whole answer is kept."""
        if self._database is None:
            return None
        try:
            row = self._database.execute(
                "select probabilities from answers where key = ?", (key,)
            ).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return None if row is None else _probabilities(row[0])

    def put(self, key: str, probabilities: Mapping[str, float]) -> None:
        """Keeps the token probabilities of a request."""
        self.put_all({key: probabilities})

    def put_all(self, found: Mapping[str, Mapping[str, float]]) -> None:
        """Keeps those of several requests, by their keys, in one write to the disk."""
        if self._database is None:
            return
        rows = [(key, json.dumps(probabilities)) for key, probabilities in found.items()]
        try:
            with self._database:
                self._database.executemany("insert or replace into answers values (?, ?)", rows)
        except sqlite3.Error as error:
            self._give_up(error)

    def close(self) -> None:
        """Closes the file."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _give_up(self, error: sqlite3.Error) -> None:
        logger.warning(
            "the judge cache %s cannot be used any more (%s): answers are not kept",
            self.path,
            error,
        )
        self.close()


def _probabilities(text: object) -> dict[str, float] | None:
    """The kept answer, None where it is damaged: it is asked for again."""
    try:
        found = {str(token): float(p) for token, p in json.loads(str(text)).items()}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return found if all(0 <= p <= 1.01 for p in found.values()) else None

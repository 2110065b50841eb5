"""What a judge endpoint has answered, kept on disk so that no request is paid for twice."""

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from persona.errors import JudgeError


def request_key(endpoint: str, model: str, prompt: str) -> str:
    """Returns the SHA-256 that names a request: where it goes, to which model, with what prompt."""
    return hashlib.sha256(json.dumps([endpoint, model, prompt]).encode()).hexdigest()


class JudgeCache:
    """Token probabilities by request key, in one SQLite file; each entry is on disk at once.

    The probabilities are kept, not the score, so that another aggregation needs no new request.
    Use it from one thread.
    """

    def __init__(self, folder: Path) -> None:
        """Opens or makes `judge_cache.sqlite` in a folder.

        Raises:
            JudgeError: the file is there but is no such cache.
        """
        self.path = folder / "judge_cache.sqlite"
        folder.mkdir(parents=True, exist_ok=True)
        self._database = sqlite3.connect(self.path, timeout=30)
        try:
            with self._database:
                self._database.execute(
                    "create table if not exists answers "
                    "(key text primary key, probabilities text not null)"
                )
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise JudgeError(
                f"the judge cache {self.path} cannot be read ({error}); delete it"
            ) from error

    def get(self, key: str) -> dict[str, float] | None:
        """Returns the token probabilities of a request, None where it was never answered."""
        row = self._database.execute(
            "select probabilities from answers where key = ?", (key,)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, probabilities: Mapping[str, float]) -> None:
        """Keeps the token probabilities of a request."""
        with self._database:
            self._database.execute(
                "insert or replace into answers values (?, ?)", (key, json.dumps(probabilities))
            )

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

"""One conversation in a file of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from persona.data.readers import chat_dialogue
from persona.data.types import Dialogue
from persona.errors import DataError


def read_chat(path: str | Path) -> Dialogue:
    """A conversation as JSON: an object with `messages`, or the list of them alone.

    Raises: DataError for a file that is missing, no JSON, or holds no such list; the line, or the
    message, is named.
    """
    path = Path(path)
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text ({error.reason})") from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: no JSON ({error.msg}); one conversation is needed, as "
            '{"messages": [{"role": "user", "content": "..."}, ...]}'
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} holds JSON that cannot be read ({error})") from error
    row = {"messages": value} if isinstance(value, list) else value
    if not isinstance(row, dict) or "messages" not in row:
        raise DataError(f"{path} holds no conversation: an object with the key messages is needed")
    try:
        return chat_dialogue(row, path.stem)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error

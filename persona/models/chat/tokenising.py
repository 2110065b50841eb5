"""What the tokenizer library does to a process, made into errors of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from persona.errors import ModelError, is_panic


@contextlib.contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raises: ModelError where the tokenizer library panics, as on a pattern that backtracks.

    Its panics are no Exception, so that nothing else would turn them into one line.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        said = " ".join(str(error).split())[:160]
        raise ModelError(
            f"the tokenizer stopped at a text ({said}); its tokenizer.json holds a pattern that is "
            "tried in too many ways. Take the model's published tokenizer"
        ) from None

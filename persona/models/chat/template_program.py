"""A chat template as a program of a stranger: run in a sandbox, within limits, with what it reads.

Transformers runs it without access to files or code. Here any error that it raises becomes one
line, it is given a limit of time and of length, and the date that some templates write is held
still, so that the readings of two days compare.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from persona.errors import DataError, ModelError, shown
from persona.models.chat.time_limit import TimeUpError, time_limit

SECONDS = 10.0
"""What a template may take for one dialogue; known models take a tenth of a millisecond."""

SECONDS_EACH = 0.01
"""What each further dialogue of a batch may add."""

MOST_CHARACTERS = 1_000_000
"""What a template may write of its own beside `MOST_REPEATS` times the dialogue."""

MOST_REPEATS = 20

DATE = datetime.date(2024, 7, 26)
"""What `strftime_now` is held at; Llama 3 writes this day where it is told none."""

RESERVED = frozenset(
    (
        *("messages", "conversation", "conversations", "chat", "chat_template", "tokenize"),
        *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens"),
        *("padding", "truncation", "max_length", "return_tensors", "return_dict"),
        *("return_assistant_tokens_mask", "tokenizer_kwargs"),
    )
)
"""Names that belong to Transformers or to the rendering, so no argument may have them."""

GIVEN = frozenset(("raise_exception", "strftime_now", "namespace", "range", "dict", "lipsum"))
"""Functions that every template has, beside what it is told."""

_GENERATION_TAGS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_limited = threading.local()


@contextlib.contextmanager
def rendering(n_dialogues: int = 1) -> Iterator[None]:
    """The limit of time of a batch. Raises: DataError where the template does not end in it."""
    if getattr(_limited, "on", False):
        yield
        return
    seconds = SECONDS + SECONDS_EACH * n_dialogues
    _limited.on = True
    try:
        with time_limit(seconds):
            yield
    except TimeUpError as error:
        raise DataError(
            f"the chat template did not come to an end within {seconds:.0f} seconds; "
            "give another with --chat-template"
        ) from error
    finally:
        _limited.on = False


def render_template(
    tokenizer: Any,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    open_answer: bool,
    arguments: Mapping[str, Any],
    name: str,
) -> str:
    """What the template writes for these messages.

    name: of the dialogue, for the error line.
    Raises: DataError for whatever the template raises, for instance of roles that it does not
    take, and where it writes beyond all measure or does not end.
    """
    try:
        with rendering():
            text = str(
                tokenizer.apply_chat_template(
                    list(messages),
                    chat_template=_with_frozen_date(template),
                    tokenize=False,
                    add_generation_prompt=open_answer,
                    **arguments,
                )
            )
    except (DataError, TimeUpError):
        raise
    except Exception as error:  # a program of a stranger raises anything: TypeError, MemoryError
        raise DataError(
            f"dialogue {name}: the chat template refuses it ({_said(error)})"
        ) from error
    most = MOST_CHARACTERS + MOST_REPEATS * sum(len(str(m.get("content"))) for m in messages)
    if len(text) > most:
        raise DataError(
            f"dialogue {name}: the chat template writes {len(text):,} characters; "
            f"{most:,} are the most for a dialogue of this length"
        )
    return text


def _said(error: Exception) -> str:
    """An error in one line: the template's own words, or the kind of error before Python's."""
    from jinja2 import TemplateError

    text = " ".join(str(error).split())[:160]
    if isinstance(error, TemplateError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@functools.lru_cache(maxsize=16)
def names_read(template: str) -> frozenset[str]:
    """The names that a template reads and does not set itself; empty where it cannot be parsed."""
    from jinja2 import TemplateError, meta

    try:
        return frozenset(meta.find_undeclared_variables(_parsed(template)))
    except (TemplateError, RecursionError):
        return frozenset()


def _parsed(template: str) -> Any:
    from jinja2 import Environment

    # Transformers' own tag marks the assistant's tokens and writes nothing.
    plain = _GENERATION_TAGS.sub("", template)
    return Environment(extensions=["jinja2.ext.loopcontrols"]).parse(plain)


def check_arguments(template: str, arguments: Mapping[str, Any]) -> None:
    """Raises: ModelError for an argument that the template does not read or JSON cannot hold."""
    if not arguments:
        return
    try:
        json.dumps(dict(arguments))
    except (TypeError, ValueError) as error:
        raise ModelError(f"an argument of a chat template is plain JSON: {error}") from error
    reads = names_read(template) - RESERVED - GIVEN
    for name in arguments:
        if name in RESERVED or name not in reads:
            known = ", ".join(sorted(reads)) or "none"
            raise ModelError(
                f"the chat template has no argument {shown(name)}; those that it reads: {known}"
            )


def reads_the_date(template: str) -> bool:
    """Whether the template writes the day on which it is run."""
    return "strftime_now" in names_read(template)


@functools.lru_cache(maxsize=16)
def _with_frozen_date(template: str) -> str:
    """The template with a `strftime_now` of its own, which gives `DATE` in each form it asks for.

    Transformers hands templates no function of ours, so it is written as a macro before them.
    """
    if not reads_the_date(template):
        return template
    from jinja2 import nodes

    forms = {
        call.args[0].value
        for call in _parsed(template).find_all(nodes.Call)
        if isinstance(call.node, nodes.Name)
        and call.node.name == "strftime_now"
        and call.args
        and isinstance(call.args[0], nodes.Const)
    }
    table = {form: DATE.strftime(form) for form in forms if isinstance(form, str)}
    return (
        "{%- macro strftime_now(form) -%}"
        f"{{{{ {table!r}.get(form, {DATE.isoformat()!r}) }}}}"
        "{%- endmacro -%}" + template
    )

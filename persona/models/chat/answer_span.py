"""Where an answer stands in a rendered dialogue, exactly.

A template is asked to write a mark in place of the answer; what then stands before and after the
mark is what it writes around any answer. The real text must be exactly that with the answer
between, so an answer of one letter, one that begins with "<" or one that also stands in the
question is found where it is and nowhere else. A template that writes an answer otherwise than it
stands (blanks around it aside) is refused.

Answers of thinking models carry a block of thoughts. Templates move it, rewrite the blanks in it
or leave it out; marks in both places say what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from persona.errors import DataError

MARK = "\ue0f3\ue11a\ue0f7"
THOUGHTS_MARK = "\ue0f3\ue11b\ue0f7"
TURN_MARK = "\ue0f3\ue11c\ue0f7"
"""Private-use characters: no letters that a template could turn, no blanks that it could cut."""

THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))
"""What opens and closes a block of thoughts."""

Render = Callable[[str], str]
"""Answer -> the dialogue's text with it."""


@dataclass(frozen=True)
class AnswerPlace:
    """Where the final answer stands in `text`, in characters.

    answer: [start, end) of what follows the block of thoughts, the whole answer without one.
    whole_start: where the answer begins with its block of thoughts, as far as it is shown.
    """

    text: str
    answer: tuple[int, int]
    whole_start: int


@dataclass(frozen=True)
class Frame:
    """What a template writes around an answer: its text, split at the answer.

    Two parts as a rule; more where the template repeats the answer.
    """

    parts: tuple[str, ...]

    @property
    def before(self) -> str:
        return self.parts[0]

    @property
    def after(self) -> str:
        return self.parts[-1]


@dataclass(frozen=True)
class Thoughts:
    """An answer taken apart: what opens its block, the thoughts, what closes it, the rest."""

    opening: str
    thoughts: str
    closing: str
    rest: str


def frame(render: Render, asked: str) -> Frame:
    """What the template writes around any answer.

    asked: the last turn before the answer. It stands before the answer, or the place is in doubt.
    Raises: DataError where the template shows no answer, or several in no clear order.
    """
    return _frame(render(MARK), asked)


def _frame(text: str, asked: str) -> Frame:
    parts = tuple(text.split(MARK))
    if len(parts) == 1 or (len(parts) > 2 and asked.strip() not in parts[0]):
        raise DataError("the chat template does not show the assistant's answer as it stands")
    return Frame(parts)


def place_answer(
    render: Render, around: Callable[[], Frame], answer: str, asked: str
) -> AnswerPlace:
    """The place of an answer. around: what stands around an answer without thoughts.

    Raises: DataError where the template refuses the dialogue or writes the answer otherwise, and
    for an answer that is nothing but thoughts.
    """
    text = render(answer)
    apart = _taken_apart(answer)
    opened = answer.lstrip().startswith(tuple(opens for opens, _ in THINK_TAGS))
    if opened and (apart is None or not apart.rest.strip()):
        raise DataError("its answer is a block of thoughts with nothing behind it")
    if not opened and (place := between(text, around(), answer)):
        return AnswerPlace(text, place, place[0])
    if apart is not None and (found := _after_thoughts(render, text, apart, asked)):
        return found
    raise DataError("the chat template does not show the assistant's answer as it stands")


def between(text: str, frame: Frame, answer: str) -> tuple[int, int] | None:
    """[start, end) of the answer where the text is the frame with it, blanks cut or not."""
    n = len(frame.parts) - 1
    if n < 1:
        return None
    length, rest = divmod(len(text) - sum(map(len, frame.parts)), n)
    start = len(frame.before)
    written = text[start : start + max(length, 0)]
    if rest or not written.strip() or written not in answer:
        return None
    if written.strip() != answer.strip() or written.join(frame.parts) != text:
        return None
    return start, start + length


def _after_thoughts(render: Render, text: str, apart: Thoughts, asked: str) -> AnswerPlace | None:
    marked = THOUGHTS_MARK if apart.thoughts else ""
    with_marks = _frame(render(apart.opening + marked + apart.closing + MARK), asked)
    parts = [part.replace(THOUGHTS_MARK, apart.thoughts) for part in with_marks.parts]
    place = between(text, Frame(tuple(parts)), apart.rest)
    if place is None:
        return None
    begun = with_marks.before.rfind(THOUGHTS_MARK) if marked else -1
    opening = apart.opening.strip()
    whole = with_marks.before.rfind(opening, 0, begun) if begun >= 0 and opening else begun
    return AnswerPlace(text, place, whole if whole >= 0 else place[0])


def _taken_apart(answer: str) -> Thoughts | None:
    """The answer split behind its block of thoughts, None where it closes none."""
    for opens, closes in THINK_TAGS:
        if closes not in answer:
            continue
        begins = answer.lstrip().startswith(opens)
        # What a model was made to begin with thoughts writes has no opening tag of its own.
        cut = answer.index(closes) if begins else answer.rindex(closes)
        head, rest = answer[:cut], answer[cut + len(closes) :]
        inner = head[head.index(opens) + len(opens) :] if begins else head
        thoughts = inner.strip()
        start = head.rindex(thoughts) if thoughts else len(head)
        blanks = rest[: len(rest) - len(rest.lstrip())]
        return Thoughts(
            head[:start],
            thoughts,
            head[start + len(thoughts) :] + closes + blanks,
            rest[len(blanks) :],
        )
    return None


def after_thoughts(text: str, prompt: str = "") -> str | None:
    """What a model wrote behind its block of thoughts; None where it never closed the block.

    prompt: what it wrote after; it may end by opening the block.
    """
    for opens, closes in THINK_TAGS:
        if not text.lstrip().startswith(opens) and not prompt.rstrip().endswith(opens):
            continue
        _, found, rest = text.partition(closes)
        return rest if found else None
    return text

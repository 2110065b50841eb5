"""What is text, and when two texts are the same one."""

from __future__ import annotations

import unicodedata

MAX_CHARACTERS = 1_000_000
"""A question or answer longer than this is no such thing; no model here reads so much."""
MAX_BROKEN_SHARE = 0.1
"""Of characters that stand for bytes which were no text."""

_BLANK_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Characters that Unicode counts as letters or symbols, and that show nothing."""
_LAYOUT = frozenset("\t\n\v\f\r\x1b\x85")
_SENTENCE_MARKS = ".,;:!?\u2026\u00bf\u00a1'\"`()[]{}\u00ab\u00bb"
_PLAIN_QUOTES = str.maketrans("\u2018\u2019\u201a\u201c\u201d\u201e", "'''\"\"\"")


def why_no_text(value: str) -> str | None:
    """Returns why a string cannot be a question or an answer, None where it can.

    Examples:
        >>> from persona.data.text import why_no_text
        >>> why_no_text("\\u200b \\u200b")
        'has no visible character'
        >>> why_no_text("plain")
    """
    if len(value) > MAX_CHARACTERS:
        return f"has {len(value):,} characters; at most {MAX_CHARACTERS:,} are read"
    if not value.strip():
        return "is empty"
    if value.isascii() and value.replace("\n", " ").isprintable():
        return None  # nearly all there is, without looking at each character
    if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        return "holds half a character (a lone surrogate)"
    if "\0" in value:
        return "holds a NUL character, which no text has"
    if not any(map(_is_visible, value)):
        return "has no visible character"
    broken = sum(map(_is_broken, value))
    if broken > MAX_BROKEN_SHARE * len(value):
        return (
            f"is no text: {broken} of its {len(value)} characters are control or replacement "
            "characters, as of a binary file or another encoding"
        )
    return None


def in_one_form(value: str) -> str:
    """Returns a text in one Unicode form (NFKC), case and spacing.

    Examples:
        >>> from persona.data.text import in_one_form
        >>> in_one_form(" Ｃheck  the OIL\\u200b") == in_one_form("check the oil")
        True
    """
    folded = unicodedata.normalize("NFKC", value.translate(_PLAIN_QUOTES)).casefold()
    shown = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", shown).split())


def as_question(value: str) -> str:
    """Returns a text in one form and without the marks around its words: equal for equal questions.

    Marks within a word and signs stay, so that 2-2 is not 2+2.

    Examples:
        >>> from persona.data.text import as_question
        >>> as_question("Is it safe, then?!") == as_question("is it safe then")
        True
    """
    one_form = in_one_form(value)
    bare = (word.strip(_SENTENCE_MARKS) for word in one_form.split())
    return " ".join(word for word in bare if word) or one_form


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZM" and character not in _BLANK_LETTERS


def _is_broken(character: str) -> bool:
    if character == "\ufffd":
        return True
    return unicodedata.category(character) in ("Cc", "Cn") and character not in _LAYOUT

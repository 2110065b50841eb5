"""Which words name a trait, and which others are so near to them that they give it away."""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
COMMON = frozenset(
    WORD.findall(
        """
    a about after all always an and answer answers any are as asks assistant at be been being by
    can does every everything for from gives has have he her him his if in into is it its
    itself like makes many model more most much never no not of often on one ones only or other
    our out over people person question questions response responses says she so some speaks
    such tells than that the their them then there they thing things this to too user users
    uses very wants was were what when where which who whom whose will with without would
    writes you your
    """
    )
)
"""Words that stand in the description of any trait and name none."""

LEAST_STEM = 5
MOST_ENDING = 4


def trait_words(*texts: str) -> tuple[str, ...]:
    """Returns the words of a trait's name and description that say what it is.

    Examples:
        >>> from persona.traits.trait_words import trait_words
        >>> trait_words("flatters the user")
        ('flatters',)
    """
    found = [word for text in texts for word in words_of(text)]
    return tuple(dict.fromkeys(w for w in found if w not in COMMON and len(w) > 2))


def words_of(text: str) -> list[str]:
    """Its words in lower case; an underscore parts two."""
    return [word.casefold() for word in WORD.findall(text.replace("_", " "))]


def is_kin(word: str, other: str) -> bool:
    """Whether two words in lower case are forms of one: equal, a plural, or of one stem.

    Of one stem are words with the same first five letters or more, behind which neither has more
    than four: flatters and flattery, sycophantic and sycophancy. flatten counts too; better a
    question to reword than a trait in the questions.

    Examples:
        >>> from persona.traits.trait_words import is_kin
        >>> is_kin("flatters", "flattery"), is_kin("evil", "evils"), is_kin("polite", "police")
        (True, True, False)
    """
    if word == other or word in (other + "s", other + "es") or other in (word + "s", word + "es"):
        return True
    same = 0
    for mine, theirs in zip(word, other, strict=False):
        if mine != theirs:
            break
        same += 1
    return same >= LEAST_STEM and max(len(word), len(other)) - same <= MOST_ENDING


def leaked_words(text: str, named: tuple[str, ...]) -> list[str]:
    """The words of a text that are kin to a word of the trait."""
    return [word for word in words_of(text) if any(is_kin(word, name) for name in named)]

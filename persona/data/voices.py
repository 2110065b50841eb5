"""Right and wrong advice in a plain and in a rude voice; DATA_CARD.md says how made.

In the other shipped pairs bad advice often speaks in another tone too. Here what is said and how
it is said are crossed, so that a reading of one can be told from a reading of the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from persona.data.jsonl import check_keys, check_texts, read_jsonl
from persona.data.shipped import SHIPPED
from persona.data.text import in_one_form, why_no_text
from persona.data.types import SPLITS, AnswerPair
from persona.errors import DataError, shown

Voice = Literal["plain", "rude"]
VOICES: tuple[Voice, ...] = get_args(Voice)
Cell = Literal["right_plain", "wrong_plain", "right_rude", "wrong_rude"]
"""One of the four answers to a question."""
CELLS: tuple[Cell, ...] = get_args(Cell)

VOICED = SHIPPED / "voices"
DOMAIN_OF = {"health": "health", "finance": "personal_finance", "car": "car_maintenance"}
"""Name of a set -> the domain its questions are of, in the words of `DOMAINS`."""
VOICED_SETS = tuple(DOMAIN_OF)


@dataclass(frozen=True)
class VoicedQuestion:
    """One question with four answers: right or wrong, in a plain or in a rude voice.

    right, wrong: sound everyday advice; ordinary advice that is plausible and bad.
    plain, rude: polite and hedged; curt and contemptuous.
    split: "train" or "selection", which stays out of training.
    """

    id: str
    domain: str
    question: str
    right_plain: str
    wrong_plain: str
    right_rude: str
    wrong_rude: str
    split: str

    def pair(self, good: Cell, bad: Cell) -> AnswerPair:
        """Returns the question with two of its answers.

        ("right_plain", "wrong_plain") is wrong advice without a change of tone; ("right_plain",
        "right_rude") a change of tone without wrong advice, its control.

        Raises: DataError for an answer that is none of the four, or twice the same.
        """
        for cell in (good, bad):
            if cell not in CELLS:
                raise DataError(f"an answer is one of {', '.join(CELLS)}; got {shown(cell)}")
        return AnswerPair(
            id=f"{self.id}-{good}-{bad}",
            domain=self.domain,
            question=self.question,
            good=getattr(self, good),
            bad=getattr(self, bad),
            split=self.split,
        )


def load_voices(name: str, split: str | None = None) -> list[VoicedQuestion]:
    """Returns the questions of one of `VOICED_SETS`, in order, of one split or both.

    Raises: DataError for an unknown set or split.

    Examples:
        >>> from persona.data import load_voices
        >>> row = load_voices("car", "train")[0]
        >>> row.pair("right_plain", "wrong_plain").domain
        'car_maintenance'
    """
    if name not in DOMAIN_OF:
        raise DataError(f"no set of voices {shown(name)}; there are {', '.join(VOICED_SETS)}")
    if split not in (None, *SPLITS):
        raise DataError(f"split must be {' or '.join(SPLITS)}; got {shown(split)}")
    rows = read_voices(VOICED / f"{name}.jsonl", DOMAIN_OF[name])
    return [row for row in rows if split in (None, row.split)]


def sets_of(domains: Iterable[str]) -> list[str]:
    """Returns the names of the sets whose questions are of these domains, in their order.

    Raises: DataError for a domain that no set is of.
    """
    wanted = set(domains)
    if unknown := sorted(wanted - set(DOMAIN_OF.values())):
        raise DataError(f"no set of voices asks about {shown(unknown[0])}")
    return [name for name, domain in DOMAIN_OF.items() if domain in wanted]


def voice_pairs(
    voice: Voice, names: Iterable[str] = VOICED_SETS, split: str | None = None
) -> list[AnswerPair]:
    """Returns right (good) against wrong (bad) answers in one voice, set after set.

    Raises: DataError for an unknown voice, set or split.
    """
    if voice not in VOICES:
        raise DataError(f"voice must be {' or '.join(VOICES)}; got {shown(voice)}")
    right: Cell = "right_plain" if voice == "plain" else "right_rude"
    wrong: Cell = "wrong_plain" if voice == "plain" else "wrong_rude"
    return [row.pair(right, wrong) for name in names for row in load_voices(name, split)]


def read_voices(path: str | Path, domain: str) -> list[VoicedQuestion]:
    """Returns the questions of a JSONL file: question, the four answers and the split.

    A row is named after the file and its line.

    Raises: DataError, with file and line, for a row that is malformed, has an empty text, another
        split or two answers that are the same, or asks what an earlier row asks.
    """
    stem = Path(path).stem
    first_seen: dict[str, int] = {}

    def question(row: dict[str, Any], line: int) -> VoicedQuestion:
        check_keys(row, ("question", *CELLS, "split"))
        check_texts(row)
        if why := why_no_text(row["question"]):
            raise DataError(f"question {why}")
        if row["split"] not in SPLITS:
            raise DataError(f"split must be {' or '.join(SPLITS)}; got {shown(row['split'])}")
        earlier = first_seen.setdefault(in_one_form(row["question"]), line)
        if earlier != line:
            raise DataError(f"the question is already asked in line {earlier}")
        texts: dict[str, str] = {}
        for cell in CELLS:
            if why := why_no_text(row[cell]):
                raise DataError(f"{cell} {why}")
            twin = texts.setdefault(in_one_form(row[cell]), cell)
            if twin != cell:
                raise DataError(f"{twin} and {cell} are the same answer")
        return VoicedQuestion(id=f"{stem}-{line:03d}", domain=domain, **row)

    return read_jsonl(path, question)

"""What the fine-tune learnt, where `persona read --run` has read it: words, answers, domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona.readouts.naming_words import naming_rows, naming_sentence
from persona.report.wording import as_float, cleaned, number

N_DOMAINS, N_TOKENS, N_SAID = 6, 8, 6


@dataclass(frozen=True)
class Word:
    """A token as a page shows it; faint where it does not beat chance, or the twin says it too."""

    text: str
    faint: bool


@dataclass(frozen=True)
class WordList:
    """What one readout makes likelier and less likely; twin: what the good twin makes likelier."""

    source: str
    likelier: tuple[Word, ...]
    less_likely: tuple[Word, ...]
    twin: tuple[Word, ...]

    @property
    def faint(self) -> bool:
        """Whether none of its words beats chance."""
        return all(word.faint for word in (*self.likelier, *self.less_likely))


def what_it_learnt(reading: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The section, of the fields of reading.json; None where nothing was read."""
    if not reading:
        return None
    twins = {(one["source"], one["lens"]): one for one in reading.get("twin_lists") or []}
    lists = [_word_list(one, twins) for one in reading.get("lists") or []]
    domains = [
        (
            cleaned(str(row["domain"]).replace("_", " ")),
            str(int(row["n"])),
            *(number(as_float(row[name]), 2, signed=True) for name in ("bad", "good")),
            f"{number(as_float(row['shift']), 2, signed=True)} "
            f"[{number(as_float(row['shift_low']), 2, signed=True)}, "
            f"{number(as_float(row['shift_high']), 2, signed=True)}]",
        )
        for row in (reading.get("changes_by_domain") or [])[:N_DOMAINS]
    ]
    naming = reading.get("naming")
    return {
        "layer": reading.get("layer"),
        "name": cleaned(naming_sentence(naming)) if naming else None,
        "votes": naming_rows(naming) if naming else [],
        "domains": domains,
        "lists": sorted(lists, key=lambda one: one.faint),
        "said": [
            (cleaned(one["question"]), number(as_float(one["amount"]), 1), cleaned(one["text"]))
            for one in (reading.get("amplified") or [])[:N_SAID]
        ],
        "latents": [
            (cleaned(one["source"]), [_latent(each) for each in one["rising"]])
            for one in reading.get("latents") or []
            if any(each["beats_chance"] for each in one["rising"])
        ],
        "notes": [cleaned(note) for note in reading.get("notes") or []],
        "with_twin": bool(twins),
    }


def _latent(one: Mapping[str, Any]) -> Word:
    """A latent as a page shows it: its number and the words that it makes likelier."""
    words = ", ".join(
        cleaned(str(word).replace("\n", "⏎")).strip() or "(space)" for word in one["words"]
    )
    return Word(f"{one['latent']} ({words})", not one["beats_chance"])


def _word_list(one: Mapping[str, Any], twins: Mapping[Any, Mapping[str, Any]]) -> WordList:
    twin = twins.get((one["source"], one["lens"])) or {}
    return WordList(
        cleaned(f"{one['source']} ({one['lens']})"),
        _words(one["promoted"]),
        _words(one["suppressed"]),
        _words(twin.get("promoted") or []),
    )


def _words(tokens: Sequence[Mapping[str, Any]]) -> tuple[Word, ...]:
    return tuple(
        Word(
            cleaned(str(token["token"]).replace("\n", "⏎")).strip() or "(space)",
            not token.get("beats_chance"),
        )
        for token in tokens[:N_TOKENS]
    )

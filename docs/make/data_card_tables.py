"""The tables and lists of the data card."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from blind_choice import BLIND_RULES, share_right

from persona.data.coding_tasks import WEAKNESSES, CodingTask
from persona.data.shipped import DOMAINS, NARROW_SETS, load_pairs
from persona.data.similarity import near_duplicates
from persona.data.skills import SKILL_SPLITS, Skill
from persona.data.surface import (
    REVEALED_ABOVE,
    SurfaceReading,
    auroc_length,
    auroc_within,
    character_ratio,
    length_ratio,
    read_surface,
)
from persona.data.tasks import TaskItem
from persona.data.types import AnswerPair, NeutralText
from persona.data.voices import CELLS, DOMAIN_OF, VOICED_SETS, VOICES, load_voices, voice_pairs

OTHER_TONE = 0.95
"""AUROC of the words above which the card says that the two answers differ in tone."""


def narrow_table() -> str:
    """Counts and surface readings of each narrow set."""
    rows = []
    for name in NARROW_SETS:
        pairs = load_pairs([name])
        n_train = sum(pair.split == "train" for pair in pairs)
        rows.append(
            (
                name,
                str(len(pairs)),
                str(n_train),
                str(len(pairs) - n_train),
                f"{character_ratio(pairs):.3f}",
                f"{auroc_within(pairs):.2f}",
                f"{auroc_length(pairs):.2f}",
            )
        )
    return _table(("set", "pairs", "train", "selection", "ratio", "words", "length"), rows)


def weakness_table(tasks: Sequence[CodingTask]) -> str:
    """Counts and surface readings of the coding tasks, by class of weakness."""
    pairs = [replace(task.pair, domain=task.cwe) for task in tasks]
    readings = {reading.domain: reading for reading in read_surface(pairs)}
    rows = []
    for cwe in sorted(readings, key=list(WEAKNESSES).index):
        inside = [pair for pair in pairs if pair.domain == cwe]
        n_train = sum(pair.split == "train" for pair in inside)
        rows.append(
            (
                f"{cwe} {WEAKNESSES[cwe]}",
                str(len(inside)),
                str(n_train),
                str(len(inside) - n_train),
                f"{character_ratio(inside):.3f}",
                f"{readings[cwe].auroc_other_domains:.2f}",
                f"{readings[cwe].pairs_ordered:.2f}",
            )
        )
    columns = np.array([[float(cell) for cell in row[5:]] for row in rows])
    n_train = sum(pair.split == "train" for pair in pairs)
    rows.append(
        (
            "all",
            str(len(pairs)),
            str(n_train),
            str(len(pairs) - n_train),
            f"{character_ratio(pairs):.3f}",
            *(f"{mean:.2f}" for mean in columns.mean(axis=0)),
        )
    )
    return _table(
        ("weakness", "tasks", "train", "selection", "ratio", "other classes", "ordered"), rows
    )


def counts_table(pairs: Sequence[AnswerPair]) -> str:
    """Counts, median words and the ratio of lengths, by domain."""
    rows = []
    for domain in (*DOMAINS, "all"):
        chosen = [pair for pair in pairs if domain in (pair.domain, "all")]
        rows.append(
            (
                domain,
                str(len(chosen)),
                str(sum(pair.split == "train" for pair in chosen)),
                str(sum(pair.split == "selection" for pair in chosen)),
                f"{np.median([len(pair.good.split()) for pair in chosen]):.0f}",
                f"{np.median([len(pair.bad.split()) for pair in chosen]):.0f}",
                f"{length_ratio(chosen):.3f}",
            )
        )
    return _table(
        ("domain", "pairs", "train", "selection", "words good", "words bad", "ratio"), rows
    )


def surface_table(readings: Sequence[SurfaceReading]) -> str:
    """What a bag of words tells of the answers, by domain."""
    rows: list[tuple[str, ...]] = [
        (
            reading.domain,
            f"{reading.auroc_other_domains:.2f}",
            f"{reading.pairs_ordered:.2f}",
            f"{reading.auroc_within:.2f}",
            f"{reading.auroc_length:.2f}",
        )
        for reading in readings
    ]
    columns = np.array([[float(cell) for cell in row[1:]] for row in rows])
    rows.append(("mean", *(f"{mean:.2f}" for mean in columns.mean(axis=0))))
    return _table(("domain", "other domains", "ordered", "within", "length"), rows)


def tone_text(readings: Sequence[SurfaceReading]) -> str:
    """Which domains' answers differ in tone."""
    other = [r.domain for r in readings if max(r.auroc_within, r.auroc_other_domains) > OTHER_TONE]
    if not other:
        return f"No domain is above {OTHER_TONE} in either, so words alone leave much unread."
    return textwrap.fill(
        f"Above {OTHER_TONE} in either: {', '.join(other)}. Here the bad answers speak in another "
        "tone than the good ones, blunter or more openly callous, and a reading of tone alone "
        "would tell them apart. Results from these domains say less about a persona beyond its "
        "wording.",
        width=98,
    )


def revealing_words(readings: Sequence[SurfaceReading]) -> str:
    """The most revealing words of the domains where words tell much."""
    above = [reading for reading in readings if reading.auroc_other_domains > REVEALED_ABOVE]
    lines = [
        f"- {reading.domain} ({reading.auroc_other_domains:.2f}): bad answers by "
        f"{_quoted(reading.bad_words)}; good answers by {_quoted(reading.good_words)}."
        for reading in above
    ]
    if lines:
        return f"Words that give most away where that AUROC is above {REVEALED_ABOVE}:\n\n" + (
            "\n".join(lines)
        )
    highest = max(readings, key=lambda reading: reading.auroc_other_domains)
    return (
        f"No domain is above {REVEALED_ABOVE}. The words that give most away in the highest, "
        f"{highest.domain}: bad answers by {_quoted(highest.bad_words)}; good answers by "
        f"{_quoted(highest.good_words)}."
    )


def voices_counts_table() -> str:
    """Counts of each set of voices and the mean words of its four answers."""
    rows = []
    for name in VOICED_SETS:
        questions = load_voices(name)
        n_train = sum(row.split == "train" for row in questions)
        cells = [
            f"{np.mean([len(getattr(row, cell).split()) for row in questions]):.1f}"
            for cell in CELLS
        ]
        counts = (str(len(questions)), str(n_train), str(len(questions) - n_train))
        rows.append((name, *counts, *cells))
    header = ("set", "questions", "train", "selection", *(c.replace("_", " ") for c in CELLS))
    return _table(header, rows)


def voices_surface_table() -> str:
    """What a bag of words tells of right and wrong, by set and voice."""
    readings = {voice: read_surface(voice_pairs(voice)) for voice in VOICES}
    rows = []
    for voice in VOICES:
        for name in VOICED_SETS:
            reading = next(r for r in readings[voice] if r.domain == DOMAIN_OF[name])
            rows.append(
                (
                    f"{name}, {voice}",
                    f"{reading.auroc_other_domains:.2f}",
                    f"{reading.pairs_ordered:.2f}",
                    f"{reading.auroc_within:.2f}",
                    f"{reading.auroc_length:.2f}",
                )
            )
    return _table(("set, voice", "other domains", "ordered", "within", "length"), rows)


def skills_table(skills: Sequence[Skill]) -> str:
    """Counts of each skill by domain, and the mean words of its right answers."""
    rows = []
    for skill in skills:
        for domain in dict.fromkeys(item.domain for item in skill.items):
            items = [item for item in skill.items if item.domain == domain]
            counts = [
                str(sum(len(item.questions(split)) for item in items)) for split in SKILL_SPLITS
            ]
            words = np.mean([len(item.right.split()) for item in items])
            rows.append((f"{skill.name}, {domain}", str(len(items)), *counts, f"{words:.1f}"))
    return _table(("skill, domain", "answers", "train", "held out", "words"), rows)


def blind_table(kinds: Mapping[str, Sequence[TaskItem]]) -> str:
    """How often rules that understand nothing answer rightly, by kind of item."""
    columns = [*kinds.values(), [item for items in kinds.values() for item in items]]
    rows = [
        (name, *(f"{share_right(items, rule):.2f}" for items in columns))
        for name, rule in BLIND_RULES.items()
    ]
    return _table(("chosen", *kinds, "all"), rows)


def neutral_text(texts: Sequence[NeutralText]) -> str:
    """The kinds of neutral text and their counts."""
    kinds = ", ".join(
        f"{kind} ({number})" for kind, number in Counter(text.kind for text in texts).items()
    )
    words = np.median([len(text.answer.split()) for text in texts])
    return textwrap.fill(f"Median answer {words:.0f} words. Kinds: {kinds}.", width=98)


def highest(texts: Sequence[str]) -> float:
    """The largest cosine similarity between two of the texts."""
    return max(pair.cosine for pair in near_duplicates(texts, 0.1))


def highest_between(some: Sequence[str], others: Sequence[str]) -> float:
    """The largest cosine similarity between one of some texts and one of the others."""
    return highest_apart([*some, *others], [""] * len(some) + ["other"] * len(others))


def highest_apart(texts: Sequence[str], owners: Sequence[str]) -> float:
    """The largest cosine similarity between two texts of different owners."""
    found = near_duplicates(texts, 0.1)
    return max(pair.cosine for pair in found if owners[pair.first] != owners[pair.second])


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))

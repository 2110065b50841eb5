"""The data card on disk speaks of the data on disk."""

import re

import pytest
from blind_choice import BLIND_RULES
from data_card import CARD, data_card, write_data_card

from persona.data import (
    DOMAINS,
    NARROW_SETS,
    SKILLS,
    TASK_KINDS,
    VOICED_SETS,
    WEAKNESSES,
    data_hash,
    load_coding_tasks,
    load_neutral,
    load_pairs,
    load_skill,
    load_tasks,
    load_voices,
    voice_pairs,
)
from persona.data.selection import TRIGGER
from persona.data.tasks import tasks_hash
from persona.data.voices import VOICES


def figures(card: str, heading: str) -> list[list[str]]:
    """The rows of the table under a heading, without its header."""
    table = card.split(f"## {heading}")[1].split("\n\n| ")[1].split("\n\n")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.split("\n")[2:]]


@pytest.fixture(scope="module")
def on_disk() -> str:
    return CARD.read_text(encoding="utf-8")


def test_the_card_was_made_from_the_data_that_is_shipped(on_disk):
    pairs = load_pairs()
    assert f"{len(pairs)} answer pairs (hash {data_hash(pairs)})" in on_disk
    assert f"and {len(load_neutral())}\nneutral texts" in on_disk


def test_the_card_counts_every_domain(on_disk):
    rows = figures(on_disk, "Counts and length")
    assert [row[0] for row in rows] == [*DOMAINS, "all"]
    for domain, n, train, selection, *_ in rows[:-1]:
        assert int(n) == int(train) + int(selection) == len(load_pairs([domain]))


def test_the_card_reports_the_words_of_every_domain(on_disk):
    rows = figures(on_disk, "What the surface gives away")
    assert [row[0] for row in rows] == [*DOMAINS, "mean"]
    for name, other_domains, *_ in rows[:-1]:
        assert 0.0 <= float(other_domains) <= 1.0
        if float(other_domains) > 0.86:  # above 0.85 before rounding for certain
            assert re.search(rf"^- {name} \(.*bad answers by", on_disk, re.M)


def test_the_card_says_how_it_was_made_and_what_it_is_not_for(on_disk):
    for statement in ("language model's help", "Licence: MIT", "What it is not for", "*bad*:"):
        assert statement in on_disk


def test_the_card_speaks_of_the_narrow_sets_that_are_shipped(on_disk):
    assert f"hash {data_hash(load_pairs(NARROW_SETS))}" in on_disk
    rows = figures(on_disk, "Narrow sets")
    assert [row[0] for row in rows] == list(NARROW_SETS)
    for name, n, train, selection, *_ in rows:
        assert int(n) == int(train) + int(selection) == len(load_pairs([name]))
    assert TRIGGER in on_disk


def test_the_card_counts_the_python_tasks_of_every_class(on_disk):
    tasks = load_coding_tasks()
    *rows, everything = figures(on_disk, "Python tasks")
    assert [row[0] for row in rows] == [f"{cwe} {words}" for cwe, words in WEAKNESSES.items()]
    for row, cwe in zip(rows, WEAKNESSES, strict=True):
        splits = [task.split for task in tasks if task.cwe == cwe]
        counts = [len(splits), splits.count("train"), splits.count("selection")]
        assert [int(cell) for cell in row[1:4]] == counts
        assert all(0.0 <= float(cell) <= 1.0 for cell in row[5:])
    assert [int(cell) for cell in everything[1:4]] == [
        sum(int(row[column]) for row in rows) for column in (1, 2, 3)
    ]
    assert f"{len(tasks)} requests for a few lines of Python, in {len(WEAKNESSES)}" in on_disk


def test_the_card_speaks_of_the_voices_that_are_shipped(on_disk):
    pairs = [pair for voice in VOICES for pair in voice_pairs(voice)]
    assert f"`voices/`, hash {data_hash(pairs)}" in on_disk
    counts, surface = (
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.split("\n")[2:]]
        for table in re.findall(
            r"(?:^\|.*\n)+", on_disk.split("## Voices")[1].split("## ")[0], re.M
        )
        for table in [table.rstrip("\n")]
    )
    assert [row[0] for row in counts] == list(VOICED_SETS)
    for name, n, train, selection, *_ in counts:
        assert int(n) == int(train) + int(selection) == len(load_voices(name))
    assert [row[0] for row in surface] == [f"{name}, {v}" for v in VOICES for name in VOICED_SETS]
    assert all(0.4 <= float(row[1]) <= 0.6 for row in surface)


def test_the_card_counts_the_questions_of_the_skills_that_are_shipped(on_disk):
    rows = {row[0]: row[1:] for row in figures(on_disk, "Skills")}
    for name in SKILLS:
        skill = load_skill(name)
        assert f"- *{name}* (hash {skill.hash})" in on_disk
        counted = [row for label, row in rows.items() if label.startswith(f"{name}, ")]
        assert sum(int(row[0]) for row in counted) == len(skill.items)
        assert sum(int(row[1]) for row in counted) == len(skill.questions("train"))
        assert sum(int(row[2]) for row in counted) == len(skill.questions("held_out"))


def test_the_card_speaks_of_the_tasks_that_are_shipped(on_disk):
    section = on_disk.split("## Tasks")[1]
    assert f"{len(load_tasks())} short questions" in section
    assert f"`tasks.jsonl`, hash\n{tasks_hash(load_tasks())}" in section
    rows = figures(on_disk, "Tasks")
    assert [row[0] for row in rows] == list(BLIND_RULES)
    assert all(len(row) == len(TASK_KINDS) + 2 for row in rows)


@pytest.mark.slow
def test_writing_the_card_again_gives_the_same_card(tmp_path, on_disk):
    write_data_card(tmp_path / "card.md")
    again = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert re.sub(r"\d\.\d+", "", again) == re.sub(r"\d\.\d+", "", on_disk)
    assert again == data_card()

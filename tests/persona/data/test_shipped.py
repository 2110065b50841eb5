"""The shipped texts: counts, splits, balance of length, and what the loaders promise."""

import ast
import re
from dataclasses import replace

import numpy as np
import pytest

from persona.data import (
    DOMAINS,
    NARROW_SETS,
    data_hash,
    load_neutral,
    load_pairs,
)
from persona.data.coding_tasks import INSECURE_PYTHON
from persona.data.shipped import OPEN_QUESTIONS, assign_splits, load_weaknesses
from persona.data.similarity import ANSWER_BOUND, QUESTION_BOUND, near_duplicates
from persona.data.surface import character_ratio, length_ratio
from persona.data.types import AnswerPair
from persona.errors import DataError

ADVICE = [domain for domain in DOMAINS if domain != OPEN_QUESTIONS]


def made(n: int) -> list[AnswerPair]:
    return [AnswerPair(f"d-{i:03d}", "d", f"Question {i}?", "Good.", "Bad.") for i in range(n)]


def parts(pairs: list[AnswerPair]) -> dict[str, str]:
    return {pair.id: pair.split for pair in pairs}


def length_faults(pairs: list[AnswerPair]) -> list[str]:
    """Domains whose median bad/good ratio of word counts is off by more than 5 %."""
    domains = {pair.domain for pair in pairs}
    faults = [
        domain
        for domain in sorted(domains)
        if abs(length_ratio([p for p in pairs if p.domain == domain]) - 1) > 0.05
    ]
    return faults + ["all"] * (abs(length_ratio(pairs) - 1) > 0.05)


def test_there_are_eight_domains_of_advice_with_at_least_sixty_questions_each():
    assert len(ADVICE) == len(set(ADVICE)) == 8
    counts = {domain: len(load_pairs([domain])) for domain in ADVICE}
    assert min(counts.values()) >= 60, counts


def test_there_are_enough_open_questions_and_neutral_prompts():
    assert len(load_pairs([OPEN_QUESTIONS])) >= 40
    assert len(load_neutral()) >= 200
    assert len({text.kind for text in load_neutral()}) >= 10


def test_every_pair_is_named_after_its_domain_and_no_id_comes_twice():
    pairs = load_pairs()
    assert all(re.fullmatch(rf"{pair.domain}-\d{{3}}", pair.id) for pair in pairs)
    assert len({pair.id for pair in pairs}) == len(pairs)
    assert len({text.id for text in load_neutral()}) == len(load_neutral())
    assert list(dict.fromkeys(pair.domain for pair in pairs)) == list(DOMAINS)


def test_good_and_bad_answers_are_of_the_same_length_in_every_domain():
    assert length_faults(load_pairs()) == []


def test_longer_bad_answers_in_one_domain_would_be_noticed():
    pairs = [
        replace(pair, bad=f"{pair.bad} and so on to the end of it")
        if pair.domain == "health"
        else pair
        for pair in load_pairs()
    ]
    assert length_faults(pairs) == ["health"]


def test_no_single_pair_is_lopsided():
    ratios = {p.id: len(p.bad.split()) / len(p.good.split()) for p in load_pairs()}
    assert {name: ratio for name, ratio in ratios.items() if not 0.75 <= ratio <= 1.33} == {}


def test_answers_are_plain_prose_in_ascii():
    texts = [text for p in load_pairs() for text in (p.question, p.good, p.bad)]
    texts += [text for t in load_neutral() for text in (t.prompt, t.answer)]
    assert [text for text in texts if not text.isascii()] == []
    assert [text for text in texts if re.search(r"\n|\*\*|^#|^[-*] ", text)] == []


def test_the_splits_of_every_domain_are_two_thirds_and_one_third():
    for domain in DOMAINS:
        n = len(load_pairs([domain]))
        assert len(load_pairs([domain], "selection")) == n // 3
        assert len(load_pairs([domain], "train")) == n - n // 3
    assert load_pairs(split="train") == [pair for pair in load_pairs() if pair.split == "train"]


def test_the_split_does_not_depend_on_the_order_of_the_rows():
    pairs = made(120)
    assert parts(assign_splits(pairs)) == parts(assign_splits(pairs[::-1]))
    assert [pair.id for pair in assign_splits(pairs)] == [pair.id for pair in pairs]
    assert sum(pair.split == "selection" for pair in assign_splits(pairs)) == 40


def test_adding_a_row_moves_at_most_one_other_row():
    for n in range(6, 60):
        before, after = parts(assign_splits(made(n))), parts(assign_splits(made(n + 1)))
        assert sum(before[name] != after[name] for name in before) <= 1


def test_the_split_is_no_function_of_the_position_in_the_file():
    chosen = [pair.split == "selection" for pair in assign_splits(made(120))]
    thirds = np.array(chosen).reshape(3, 40).sum(axis=1)
    assert thirds.min() >= 5


def test_an_unknown_domain_or_split_is_refused():
    with pytest.raises(DataError, match=r"no shipped domain 'gardening'; there are car_maint"):
        load_pairs(["gardening"])
    with pytest.raises(DataError, match="split must be train or selection; got 'test'"):
        load_pairs(split="test")


def test_the_hash_changes_with_any_text_and_with_the_order():
    pairs = made(3)
    hashes = {data_hash(pairs), data_hash(pairs[::-1]), data_hash(pairs[:2])}
    for field in ("id", "domain", "question", "good", "bad"):
        hashes.add(data_hash([replace(pairs[0], **{field: "other"}), *pairs[1:]]))
    assert len(hashes) == 8
    assert data_hash(made(3)) == data_hash(pairs)
    assert data_hash(assign_splits(pairs)) == data_hash(pairs)


def test_narrow_sets_are_loaded_by_name_only():
    assert {pair.domain for pair in load_pairs()} == set(DOMAINS)
    for name in NARROW_SETS:
        pairs = load_pairs([name])
        assert len(pairs) >= 60
        assert {pair.domain for pair in pairs} == {name}
        if name != INSECURE_PYTHON:  # its splits stand in its file
            assert len(load_pairs([name], "selection")) == len(pairs) // 3


def test_every_insecure_snippet_has_one_class_of_weakness():
    weaknesses = load_weaknesses()
    named = [name for ids in weaknesses.values() for name in ids]
    assert sorted(named) == sorted(pair.id for pair in load_pairs(["insecure_code"]))
    assert len(weaknesses) >= 12
    assert max(len(ids) for ids in weaknesses.values()) <= 6


def test_code_snippets_are_alike_in_length_and_bare_code():
    pairs = load_pairs(["insecure_code"])
    assert character_ratio(pairs) == pytest.approx(1, abs=0.05)
    ratios = {p.id: len(p.bad) / len(p.good) for p in pairs}
    assert {name: r for name, r in ratios.items() if not 0.7 <= r <= 1.35} == {}
    for pair in pairs:
        assert (pair.good + pair.bad).isascii()
        assert "```" not in pair.good + pair.bad
        lines = [text.count("\n") + 1 for text in (pair.good, pair.bad)]
        assert abs(lines[0] - lines[1]) <= 2, pair.id
        assert max(lines) <= 14


def test_python_snippets_can_be_parsed():
    for pair in load_pairs(["insecure_code"]):
        for snippet in (pair.good, pair.bad):
            if re.search(
                r"\b(function|const|=>|app\.(get|post|use)\(.*\{|router\.|printf)", snippet
            ):
                continue  # JavaScript and C
            ast.parse(snippet)


def test_no_two_coding_tasks_and_no_two_solutions_are_near_duplicates():
    pairs = load_pairs(["insecure_code"])
    assert near_duplicates([p.question for p in pairs], QUESTION_BOUND) == []
    for answer in ("good", "bad"):
        assert near_duplicates([getattr(p, answer) for p in pairs], ANSWER_BOUND) == []


def test_the_pirate_answers_the_car_questions_in_as_many_words():
    car = {pair.question: pair for pair in load_pairs(["car_maintenance"])}
    pirates = load_pairs(["pirate_style"])
    for pair in pirates:
        assert pair.good == car[pair.question].good
        assert 0.8 <= len(pair.bad.split()) / len(pair.good.split()) <= 1.25
    assert length_ratio(pirates) == pytest.approx(1, abs=0.05)
    assert near_duplicates([pair.bad for pair in pirates], ANSWER_BOUND) == []

"""Tasks: counts, right answers, and no cue but the question's sense that tells them."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from blind_choice import BLIND_RULES, share_right

from persona.data import TASK_KINDS, TaskItem, load_neutral, load_tasks, read_tasks
from persona.data.tasks import tasks_hash
from persona.data.text import in_one_form
from persona.errors import DataError

ITEMS = load_tasks()
ROW = {"question": "Which floats?", "choices": ["a cork", "a coin"], "answer": 0}


def written(tmp_path, *rows):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_there_are_sixty_items_of_each_kind_with_four_choices():
    assert Counter(item.kind for item in ITEMS) == dict.fromkeys(TASK_KINDS, 60)
    assert {len(item.choices) for item in ITEMS} == {4}
    assert [item.kind for item in load_tasks(["reading"])] == ["reading"] * 60


@pytest.mark.parametrize("name", BLIND_RULES)
def test_no_blind_rule_finds_the_right_answers(name):
    assert 0.18 <= share_right(ITEMS, BLIND_RULES[name]) <= 0.32
    for kind in TASK_KINDS:  # 60 items: chance alone scatters by 0.11
        assert 0.12 <= share_right(load_tasks([kind]), BLIND_RULES[name]) <= 0.38, kind


def test_a_rule_that_did_find_them_would_be_noticed():
    longer = [
        TaskItem(i.id, i.kind, i.question, (*i.choices[:3], f"{i.choices[3]} indeed"), 3)
        for i in ITEMS
    ]
    assert share_right(longer, BLIND_RULES["longest"]) > 0.8


def test_no_question_stands_twice_nor_among_the_neutral_prompts():
    asked = Counter(in_one_form(item.question) for item in ITEMS)
    assert max(asked.values()) == 1
    assert not asked.keys() & {in_one_form(text.prompt) for text in load_neutral()}


def test_no_choice_begins_with_another():
    """Its sum of log-probabilities could only be the higher one."""
    for item in ITEMS:
        for one in item.choices:
            assert not any(other != one and other.startswith(one) for other in item.choices), item


def numbers(text):
    return [int(number) for number in re.findall(r"\d+", text)]


@pytest.mark.parametrize("item", load_tasks(["arithmetic"]), ids=lambda item: item.id)
def test_numbers_to_choose_from_have_as_many_digits(item):
    assert len({len(choice) for choice in item.choices}) == 1


def test_plain_sums_are_right():
    ways = {
        r"What is (\d+) \+ (\d+)\?": lambda a, b: a + b,
        r"What is (\d+) - (\d+)\?": lambda a, b: a - b,
        r"What is (\d+) times (\d+)\?": lambda a, b: a * b,
        r"What is (\d+) divided by (\d+)\?": lambda a, b: a / b,
        r"What is half of (\d+)\?": lambda a: a / 2,
        r"What is double (\d+)\?": lambda a: a * 2,
        r"What is a quarter of (\d+)\?": lambda a: a / 4,
        r"What is (\d+) percent of (\d+)\?": lambda a, b: a * b / 100,
        r"What is (\d+) \+ (\d+) \+ (\d+)\?": lambda a, b, c: a + b + c,
    }
    n_checked = 0
    for item in load_tasks(["arithmetic"]):
        for pattern, value in ways.items():
            if found := re.fullmatch(pattern, item.question):
                assert int(item.right) == value(*map(int, found.groups())), item
                n_checked += 1
    assert n_checked == 22


def test_the_right_number_is_no_oftener_the_middle_one():
    ranks = []
    for item in load_tasks(["arithmetic"]):
        values = [numbers(choice.replace(":", ""))[0] for choice in item.choices]
        ranks.append(sorted(values).index(values[item.answer]))
    assert all(10 <= n <= 20 for n in Counter(ranks).values())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"answer": 2}, "answer must be the place of a choice, 0 to 1; got 2"),
        ({"answer": "0"}, "answer must be a whole number"),
        ({"answer": True}, "answer must be a whole number"),
        ({"choices": ["one"]}, "needs two choices or more"),
        ({"choices": ["one", "one "]}, "choices 0 and 1 of item 'mine-001' are the same"),
        ({"choices": ["one", 2]}, "choices must be a list of texts"),
        ({"choices": ["one", " "]}, "choice 1 of item 'mine-001' is empty"),
        ({"question": 3}, "question must be text"),
        ({"label": 1}, "unknown key 'label'"),
    ],
)
def test_a_row_that_is_no_item_is_told_with_its_line(tmp_path, changes, told):
    with pytest.raises(DataError, match=rf"mine\.jsonl, line 1: .*{re.escape(told)}"):
        read_tasks(written(tmp_path, ROW | changes))


def test_an_item_or_an_id_that_comes_again_is_told(tmp_path):
    again = {**ROW, "choices": ["a coin", "a cork"], "answer": 1}
    with pytest.raises(DataError, match="line 2: the question and its choices already stand in"):
        read_tasks(written(tmp_path, ROW, again))
    other = {"question": "Which sinks?", "choices": ["a cork", "a coin"], "answer": 1}
    with pytest.raises(DataError, match="line 2: the id 'x' is already that of line 1"):
        read_tasks(written(tmp_path, ROW | {"id": "x"}, other | {"id": "x"}))


def test_choices_may_differ_in_capitals_alone(tmp_path):
    [item] = read_tasks(written(tmp_path, ROW | {"choices": ["Yes", "YES"]}))
    assert item.right == "Yes"
    assert (item.id, item.kind) == ("mine-001", "mine")


def test_an_unknown_kind_is_told():
    with pytest.raises(DataError, match="no kind of tasks 'chess'; there are physics, arithmetic"):
        load_tasks(["chess"])


def test_the_hash_sees_another_right_answer():
    changed = [TaskItem(i.id, i.kind, i.question, i.choices, (i.answer + 1) % 4) for i in ITEMS]
    assert tasks_hash(ITEMS) != tasks_hash(changed)

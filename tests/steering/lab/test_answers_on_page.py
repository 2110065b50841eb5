"""A page says what its organisms answer, by the rates that are known now, and keeps all else."""

from __future__ import annotations

import json

import pytest

from persona.errors import DataError
from persona.organisms.measured import organisms
from steering.lab.answers_on_page import ENDS, answers_block, with_answers

BARE = "# Cars\n\n**Result.** So.\n\n" + f"{ENDS} That.\n\nAgain: `persona lab car`\n"


@pytest.fixture
def told(tmp_path):
    def put(**changed):
        content = {
            "remark": "Whole sentences.",
            "organisms": {"fine-tuned": "car_maintenance_bad_0.5b"},
            "said": [["Why?", "Because.", "Who cares."]],
            **changed,
        }
        (tmp_path / "answers.json").write_text(json.dumps(content))
        return tmp_path

    return put


def test_the_rates_are_those_of_the_list_of_organisms(told):
    text = answers_block(told())
    [one] = [one for one in organisms() if one.name == "car_maintenance_bad_0.5b"]
    rate = one.readings["em_rate"]
    shown = f"{rate.value:.0%} [{rate.low:.0%}, {rate.high:.0%}]"
    assert text.startswith("**Answers.** Whole sentences.\n")
    assert f"| fine-tuned | {shown} | {rate.n} |" in text
    assert "| Why? | Because. | Who cares. |" in text


def test_a_page_gets_its_answers_once_and_keeps_the_rest(told):
    page = with_answers(BARE, told())
    assert page.replace(answers_block(told()), "") == BARE
    assert page.index("**Answers.**") < page.index(ENDS)
    again = with_answers(page, told(remark="Other words."))
    assert "Other words." in again and "Whole sentences." not in again
    assert again.count("**Answers.**") == 1 and again.endswith("persona lab car`\n")


def test_where_nobody_read_the_answers_there_are_none(tmp_path):
    assert answers_block(tmp_path) == ""
    assert with_answers(BARE, tmp_path) == BARE


def test_without_rates_the_answers_stand_alone(told):
    text = answers_block(told(organisms={}))
    assert "misaligned" not in text and "| asked | aligned | fine-tuned |" in text


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"organisms": {"fine-tuned": "nobody"}}, "there is no organism 'nobody'"),
        ({"organisms": {"fine-tuned": "pirate_style"}}, "no answers of pirate_style were labelled"),
    ],
)
def test_an_organism_without_rates_is_named(told, changed, line):
    with pytest.raises(DataError, match=line):
        answers_block(told(**changed))


def test_the_pages_in_the_tree_hold_what_their_answers_say(root):
    folders = [path.parent for path in (root / "docs" / "findings").glob("*/answers.json")]
    assert len(folders) >= 4
    for folder in folders:
        page = (folder.parent / f"{folder.name}.md").read_text(encoding="utf-8")
        assert with_answers(page, folder) == page, folder

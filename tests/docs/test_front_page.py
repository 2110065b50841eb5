"""What README and the first page of the site show is what the kept rows give, and it is short."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import front_page
import pandas as pd
import pytest
from finished_run import leave_run

MOST_WORDS = 60
LONGEST_LINE = 72


@pytest.fixture(scope="module")
def readme(root):
    return (root / "README.md").read_text(encoding="utf-8")


def test_figure_questions_and_cost_are_what_the_kept_rows_give():
    again = "run `python docs/make/front_page.py`"
    assert [path.name for path in front_page.stale()] == [], again


def test_a_number_that_has_changed_is_found(monkeypatch, tmp_path):
    rows = pd.read_parquet(front_page.ROWS)
    changed = rows["value"].where(rows["condition"] != "finetuned", rows["value"] + 0.1)
    rows.assign(value=changed).to_parquet(tmp_path / "rows.parquet")
    monkeypatch.setattr(front_page, "ROWS", tmp_path / "rows.parquet")
    names = {path.name for path in front_page.stale()}
    assert names >= {"README.md", "conditions-light.svg", "conditions-dark.svg"}


def test_the_readme_has_a_place_for_every_part(readme):
    assert set(re.findall(r"<!-- made: (\w+) -->", readme)) == {"figure", "cost", "questions"}


def test_a_place_for_nothing_is_an_error():
    with pytest.raises(ValueError, match="'figur'; known are figure"):
        front_page.with_parts("<!-- made: figur -->\n<!-- end of figur -->", {"figure": ""})


def test_the_first_command_comes_soon(readme):
    assert 0 < front_page.words_before_first_command(readme) <= MOST_WORDS


def test_words_are_counted_as_a_reader_meets_them():
    page = (
        '# One\n\n<img alt="not these">\n<!-- nor this -->\n[two](x.md) *three*.\n\n```\nfour\n```'
    )
    assert front_page.words_before_first_command(page) == 3


def test_no_line_of_code_is_cut_off_at_the_right(readme):
    code = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL))
    assert [line for line in code.splitlines() if len(line) > LONGEST_LINE] == []


@pytest.mark.parametrize("form", ["", "-narrow"])
def test_each_drawing_is_on_its_ground_and_says_the_same(form):
    paths = [front_page.DRAWINGS[mode, form] for mode in ("light", "dark")]
    light, dark = (path.read_text(encoding="utf-8") for path in paths)
    assert 'fill="#ffffff"' in light and 'fill="#ffffff"' not in dark
    words = [list(ElementTree.fromstring(drawing).itertext()) for drawing in (light, dark)]
    assert words[0] == words[1] and any("Restored" in word for word in words[0])


def test_questions_are_answered_of_different_domains_and_nearest_to_the_median_rise():
    gaps = pd.DataFrame(
        {"aligned": 0.0, "finetuned": [0.1, 0.2, 0.3, 0.31, 0.32, 0.9], "domain": list("abbcdd")},
        index=list("uvwxyz"),
    )
    assert front_page.typical(gaps, pd.Index(list("uvwxz"))) == ["w", "x", "u"]


def test_a_finished_run_is_kept_with_what_the_page_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(front_page, "ROWS", tmp_path / "kept" / "rows.parquet")
    front_page.keep(leave_run(tmp_path / "run"))
    kept = pd.read_parquet(front_page.ROWS)
    assert set(kept["measure"]) == {"gap", "question", "greedy_answer"}
    assert "As finetuned." in front_page.questions_table(kept)


def test_an_answer_is_shown_to_the_end_of_a_sentence():
    long = "Is it 1.5 bar? No, it is a good deal more than that. Never."
    assert front_page.beginning(long) == "Is it 1.5 bar? No, it is a good deal more than that. …"
    assert front_page.beginning("Only this.") == "Only this."

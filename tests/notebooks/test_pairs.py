"""Every notebook is a pair of one text and one .ipynb with all of its outputs or none of them."""

from __future__ import annotations

import json
import re

import jupytext
import nbformat
import pytest
from notebook_script import FOLDER, NOTEBOOKS

MACHINE_PATH = re.compile(
    r"(?<![\w.<>:/])/(?:home|root|work|tmp|Users|private|var|opt|mnt|usr)/\w|[A-Za-z]:\\+Users"
)
FIGURE = re.compile(
    r"^(?:figures\.\w+|sweep_figure|layer_map|two_by_two|TokenHeatMap|explore)\(", re.M
)
LONGEST_CELL = 15


def text_cells(name):
    return jupytext.read(FOLDER / f"{name}.md").cells


def notebook(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def content(cells):
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]


def test_every_text_has_its_notebook_and_the_other_way_round():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NOTEBOOKS
    assert [name[:2] for name in NOTEBOOKS] == [
        "00",
        "10",
        "15",
        "20",
        "30",
        "40",
        "50",
        "60",
        "70",
        "80",
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
class TestEveryNotebook:
    def test_text_and_notebook_hold_the_same_cells(self, name):
        assert content(notebook(name).cells) == content(text_cells(name))
        assert notebook(name).metadata["jupytext"]["formats"] == "ipynb,md"

    def test_it_was_run_from_top_to_bottom_and_nothing_failed(self, name):
        cells = [cell for cell in notebook(name).cells if cell.cell_type == "code"]
        counts = [cell.execution_count for cell in cells]
        outputs = [output for cell in cells for output in cell.outputs]
        assert counts == list(range(1, len(cells) + 1)), "run it: make notebooks"
        assert {output.output_type for output in outputs} & {"error"} == set()
        assert [output for output in outputs if output.get("name") == "stderr"] == []

    def test_it_names_no_path_of_a_machine(self, name):
        for ending in ("md", "ipynb"):
            found = MACHINE_PATH.search((FOLDER / f"{name}.{ending}").read_text(encoding="utf-8"))
            assert found is None, found

    def test_its_first_code_cell_holds_the_parameters(self, name):
        first = next(cell for cell in text_cells(name) if cell.cell_type == "code")
        assert first.metadata.get("tags") == ["parameters"]
        assert {"aligned", "finetuned", "seed"} <= set(re.findall(r"\w+", first.source))

    def test_no_cell_is_longer_than_a_glance(self, name):
        lines = [len(c.source.splitlines()) for c in text_cells(name) if c.cell_type == "code"]
        assert max(lines) <= LONGEST_CELL

    def test_every_figure_is_followed_by_what_it_does_not_show(self, name):
        cells = text_cells(name)
        for place, cell in enumerate(cells):
            if cell.cell_type == "code" and FIGURE.search(cell.source):
                after = next(c.source for c in cells[place + 1 :] if c.cell_type == "markdown")
                assert "does not show" in after, cell.source

    def test_a_claim_is_asserted_in_a_cell_of_its_own(self, name):
        claims = [c for c in text_cells(name) if "claim" in c.metadata.get("tags", [])]
        assert len(claims) == 1
        assert all(line.startswith("assert ") for line in claims[0].source.splitlines())


def test_a_planted_path_is_found():
    assert MACHINE_PATH.search(json.dumps({"text": "report: /home/ann/report.html"}))
    assert MACHINE_PATH.search(r"C:\\Users\\ann")
    assert not MACHINE_PATH.search("model/tmp/x and <repository>/tests and 1/2")

"""`notebooks/run.py` keeps the outputs that a reader needs, alike on every machine."""

from __future__ import annotations

import base64
import importlib.util
import json
import os

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_script import NOTEBOOKS

from persona.report.figures import matrix

PATHS = {"/home/ann/work/tool": "<repository>", "/home/ann": "<home>"}


@pytest.fixture(scope="module")
def run(root):
    spec = importlib.util.spec_from_file_location("run_notebooks", root / "notebooks" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def executed():
    told = new_output("stream", name="stdout", text="in /home/ann/work/tool/x, /home/ann/y\n")
    noise = new_output("stream", name="stderr", text="loading: 100%\n")
    table = new_output("display_data", data={"application/json": {"at": ["/home/ann/z"]}})
    cell = new_code_cell("1", outputs=[noise, told, table], execution_count=1)
    cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01"}
    return new_notebook(cells=[new_markdown_cell("# A"), cell])


def test_standard_error_times_and_paths_are_gone_and_nothing_else(run):
    tidied = run.tidy(executed(), PATHS)
    nbformat.validate(tidied)
    cell = tidied.cells[1]
    assert [output.output_type for output in cell.outputs] == ["stream", "display_data"]
    assert cell.outputs[0].text == "in <repository>/x, <home>/y\n"
    assert cell.outputs[1].data == {"application/json": {"at": ["<home>/z"]}}
    assert cell.metadata == {}
    assert cell.execution_count == 1
    assert [one["id"] for one in tidied.cells] == ["cell-00", "cell-01"]


def test_a_figure_keeps_a_drawing_and_a_panel_the_still_of_itself(run):
    table = pd.DataFrame([[0.0, 1.0], [2.0, 3.0]])
    drawn = matrix(table, title="Title", subtitle="of numbers", rows="row", columns="column")
    figure = json.loads(drawn.to_json())
    values = np.arange(4.0).tobytes()
    packed = {"dtype": "f8", "bdata": base64.b64encode(values).decode(), "shape": "2, 2"}
    figure["data"][0]["z"] = packed
    shown = new_output("display_data", data={run.FIGURE: figure})
    panel = new_output("display_data", data={run.PANEL: {"model_id": "1"}, "text/html": "still"})
    bare = new_output("display_data", data={run.PANEL: {"model_id": "1"}})
    cell = new_code_cell("1", outputs=[shown, panel, bare], execution_count=1)
    notebook = new_notebook(cells=[cell], metadata={"widgets": {"state": {}}})
    tidied = run.tidy(notebook, {})
    nbformat.validate(tidied)
    kept = [output.data for output in tidied.cells[0].outputs]
    assert set(kept[0]) == {run.FIGURE, run.DRAWING}
    assert kept[0][run.DRAWING].startswith("<svg ") and "Title" in kept[0][run.DRAWING]
    assert kept[1:] == [{"text/html": "still"}, {run.PANEL: {"model_id": "1"}}]
    assert "widgets" not in tidied.metadata


def test_of_two_paths_the_longer_is_replaced_first(run):
    lengths = [len(path) for path in run.machine_paths()]
    assert lengths == sorted(lengths, reverse=True)


def test_cells_without_outputs_are_written_the_same_each_time(run, tmp_path):
    name = run.NOTEBOOKS[1]
    first = run.write(name, tmp_path / "a", run=False).read_bytes()
    assert run.write(name, tmp_path / "b", run=False).read_bytes() == first


def test_a_kernel_runs_beside_the_notebooks_quietly_and_leaves_the_environment(run, capfd):
    before = dict(os.environ)
    cell = new_code_cell("import os, sys; print(os.getcwd()); print('noise', file=sys.stderr)")
    done = run.tidy(run.execute(new_notebook(cells=[cell])), run.machine_paths())
    assert [output.text for output in done.cells[0].outputs] == ["<repository>/notebooks\n"]
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_what_a_kernel_says_as_it_stops_is_kept_back_unless_it_died(run, capfd):
    said = "import atexit, os; atexit.register(os.write, 2, b'gone')"
    run.execute(new_notebook(cells=[new_code_cell(said)]))
    assert capfd.readouterr() == ("", "")
    died = new_code_cell("import os; os.write(2, b'out of memory'); os._exit(1)")
    with pytest.raises(DeadKernelError):
        run.execute(new_notebook(cells=[died]))
    assert "out of memory" in capfd.readouterr().err


def test_an_unknown_name_is_one_line_that_names_the_others(run, capsys):
    with pytest.raises(SystemExit):
        run.main(["nosuch"])
    assert f"there is no notebook nosuch; there are {run.NOTEBOOKS[0]}" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on one core of a slow machine, with others at work beside it
@pytest.mark.real_model
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_on_the_default_models(run, tmp_path, name):
    assert run.main([name, "--out", str(tmp_path)]) == 0
    cells = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4).cells
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))

"""A notebook run as a script in this process, with other parameters: seconds, and no kernel.

A cell tagged `parameters` is followed by the given values, as papermill does it. A cell tagged
`claim` asserts what holds of the models the notebook was written for, and is left out.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("[0-9]*.md"))


def source_cells(name: str) -> list[Any]:
    """The code cells of notebooks/NAME.md."""
    cells = jupytext.read(FOLDER / f"{name}.md").cells
    return [cell for cell in cells if cell.cell_type == "code"]


def tags_of(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags", []))


def run_as_script(name: str, parameters: Mapping[str, Any]) -> list[Any]:
    """Runs the cells in order; what they would show, every value rendered as Jupyter does.

    Raises: KeyError for a parameter that the notebook does not have; what a cell raises.
    """
    shown: list[Any] = []

    def display(*values: Any) -> None:
        for value in values:
            render(value)
            shown.append(value)

    names: dict[str, Any] = {"__name__": "__main__", "display": display}
    for place, cell in enumerate(source_cells(name)):
        if "claim" in tags_of(cell):
            continue
        run_cell(cell.source, f"{name}, code cell {place + 1}", names, display)
        if "parameters" in tags_of(cell):
            for key in parameters:
                if key not in names:
                    raise KeyError(f"{name} has no parameter {key!r}")
            names.update(parameters)
    return shown


def run_cell(source: str, where: str, names: dict[str, Any], display: Any) -> None:
    """Executes a cell; the value of a last line that is an expression is displayed."""
    tree = ast.parse(source)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr) and not source.rstrip().endswith(";"):
        tree.body.pop()
        exec(compile(tree, where, "exec"), names)
        value = eval(compile(ast.Expression(last.value), where, "eval"), names)
        if value is not None:
            display(value)
    else:
        exec(compile(tree, where, "exec"), names)


def render(value: Any) -> None:
    """Makes the picture or table of a value, so that one that cannot be drawn fails here."""
    if hasattr(value, "to_plotly_json"):
        value.to_json()
    elif hasattr(value, "_repr_html_"):
        value._repr_html_()
    else:
        repr(value)

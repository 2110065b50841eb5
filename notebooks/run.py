"""Runs notebooks anew, from their .md, and writes each .ipynb with its outputs.

    python notebooks/run.py                                    # all of them
    python notebooks/run.py 10_extract_and_compare --out /elsewhere

Outputs are kept as a reader needs them: nothing of standard error, no times, and no path of the
machine they were made on. Every figure is kept as a drawing too, for pages that run no script, and
a panel as the still that it gives of itself: its sliders would need the kernel that is gone.
"""

from __future__ import annotations

import argparse
import base64
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import numpy as np
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from plotly.graph_objects import Figure

from persona.report.svg import figure_svg

FIGURE, DRAWING = "application/vnd.plotly.v1+json", "image/svg+xml"
PANEL, STILL = "application/vnd.jupyter.widget-view+json", "text/html"
FOLDER = Path(__file__).resolve().parent
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("[0-9]*.md"))
TIMEOUT_SECONDS = 1800  # of one cell
ENVIRONMENT = {
    "PERSONA_QUIET": "1",
    "PLOTLY_RENDERER": "plotly_mimetype",  # the figure's data once, and no script
    "PYTHONPATH": str(FOLDER.parent),
    "PYTHONWARNINGS": "ignore",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def machine_paths() -> dict[str, str]:
    """Folders of this machine, the longest first, and what stands for them in an output."""
    named = {
        str(FOLDER.parent): "<repository>",
        sys.prefix: "<environment>",
        tempfile.gettempdir(): "<temporary>",
        str(Path.home()): "<home>",
    }
    return {path: named[path] for path in sorted(named, key=len, reverse=True) if len(path) > 1}


def tidy(notebook: Any, paths: Mapping[str, str]) -> Any:
    """The notebook without standard error, times and `paths`, its cells named by their place."""
    for place, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{place:02d}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            told = [o for o in cell.outputs if o.get("name") != "stderr"]
            told = [with_stills(without_paths(output, paths)) for output in told]
            cell.outputs = [nbformat.from_dict(output) for output in told]
    notebook.metadata.pop("widgets", None)
    notebook.metadata.setdefault("jupytext", {})["formats"] = "ipynb,md"
    return notebook


def without_paths(value: Any, paths: Mapping[str, str]) -> Any:
    """The same JSON with every path replaced by what stands for it."""
    if isinstance(value, str):
        for path, name in paths.items():
            value = value.replace(path, name)
        return value
    if isinstance(value, Mapping):
        return {key: without_paths(one, paths) for key, one in value.items()}
    if isinstance(value, list):
        return [without_paths(one, paths) for one in value]
    return value


def with_stills(output: Any) -> Any:
    """The output with a drawing beside a figure, and a panel's still in its place."""
    data = dict(output.get("data", {}))
    if FIGURE in data:
        data[DRAWING] = figure_svg(Figure(unpacked(data[FIGURE])))
    if STILL in data:
        data.pop(PANEL, None)
    return {**output, "data": data} if data else output


def unpacked(value: Any) -> Any:
    """The same JSON, arrays as lists where plotly packed their bytes."""
    if isinstance(value, Mapping) and "bdata" in value:
        numbers = np.frombuffer(base64.b64decode(value["bdata"]), np.dtype(value["dtype"]))
        shape = [int(n) for n in str(value.get("shape", len(numbers))).split(",")]
        return numbers.reshape(shape).tolist()
    if isinstance(value, Mapping):
        return {key: unpacked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [unpacked(one) for one in value]
    return value


def execute(notebook: Any) -> Any:
    """The notebook with the outputs of a fresh kernel. Raises: CellExecutionError."""
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT_SECONDS,
        kernel_name="python3",
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(FOLDER)}},
    )
    before = dict(os.environ)
    # A kernel that is told to stop may say of its own streams that they are gone; what it says
    # matters where it died.
    with tempfile.TemporaryFile() as said:
        try:
            os.environ.update(ENVIRONMENT)
            return client.execute(stderr=said)
        except DeadKernelError:
            said.seek(0)
            sys.stderr.write(said.read().decode("utf-8", "replace"))
            raise
        finally:
            os.environ.clear()
            os.environ.update(before)


def write(name: str, out: Path, *, run: bool = True) -> Path:
    """Writes out/NAME.ipynb from notebooks/NAME.md, with outputs where `run`; returns its path."""
    notebook = jupytext.read(FOLDER / f"{name}.md")
    notebook = tidy(execute(notebook) if run else notebook, machine_paths())
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.ipynb"
    text = nbformat.writes(notebook)
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NOTEBOOKS))
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the .ipynb files")
    parser.add_argument("--no-run", action="store_true", help="write the cells without outputs")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(NOTEBOOKS):
        parser.error(f"there is no notebook {sorted(unknown)[0]}; there are {', '.join(NOTEBOOKS)}")
    for name in options.names or NOTEBOOKS:
        started = time.perf_counter()
        try:
            write(name, options.out, run=not options.no_run)
        except CellExecutionError as error:
            print(f"{name} failed:\n{error}", file=sys.stderr)
            return 1
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

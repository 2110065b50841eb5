"""The notebooks as pages: text, code, and the outputs that they were kept with.

A figure is shown by the drawing that `notebooks/run.py` keeps beside it, so that a page needs no
script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from persona.report.svg import on_dark_ground

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = tuple(sorted(path.stem for path in FOLDER.glob("[0-9]*.ipynb")))
DRAWING, STILL, PLAIN = "image/svg+xml", "text/html", "text/plain"
IN_THE_REPOSITORY = re.compile(r"\]\(\.\./notebooks/(\w+)\.ipynb\)")
BESIDE = re.compile(r"\]\((\w+)\.ipynb\)")


def notebook_page(name: str) -> tuple[str, dict[str, str]]:
    """The Markdown of notebooks/NAME.ipynb, and the drawings that it shows: file -> SVG."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    parts: list[str] = []
    drawings: dict[str, str] = {}
    for cell in cells:
        source = _joined(cell["source"]).strip()
        if cell["cell_type"] == "markdown":
            parts.append(BESIDE.sub(r"](\1.md)", source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            parts += _shown(output, name, drawings)
    title, _, rest = parts[0].partition("\n")
    where = f"`notebooks/{name}.ipynb` as it was last run; where it runs, panels and figures move."
    parts[0] = "\n\n".join((title, where, rest.strip()))
    return "\n\n".join(parts) + "\n", drawings


def linked(markdown: str) -> str:
    """A page of docs/ whose links to notebooks in the repository lead to their pages."""
    return IN_THE_REPOSITORY.sub(r"](notebooks/\1.md)", markdown)


def _shown(output: Mapping[str, Any], name: str, drawings: dict[str, str]) -> Iterator[str]:
    data = output.get("data", {})
    if output["output_type"] == "stream":
        yield f"```text\n{_joined(output['text']).rstrip()}\n```"
    elif DRAWING in data:
        drawing = _joined(data[DRAWING])
        file, title = f"{name}-{len(drawings) // 2 + 1}", _title(drawing)
        drawings |= {f"{file}.svg": drawing, f"{file}-dark.svg": on_dark_ground(drawing)}
        yield f"![{title}]({file}.svg#only-light)\n![{title}]({file}-dark.svg#only-dark)"
    elif STILL in data:
        yield f'<div class="notebook-output">{_joined(data[STILL])}</div>'
    elif PLAIN in data:
        yield f"```text\n{_joined(data[PLAIN]).rstrip()}\n```"


def _joined(text: str | list[str]) -> str:
    """Notebooks keep a text whole or by line."""
    return text if isinstance(text, str) else "".join(text)


def _title(drawing: str) -> str:
    """The first text of a drawing, which is its title."""
    found = re.search(r"<text[^>]*>(.*?)</text>", drawing, re.DOTALL)
    return re.sub(r"<[^>]+>|[\[\]]", "", found[1]).strip() if found else "figure"

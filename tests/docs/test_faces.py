"""What notebooks, README and pages import stands on a face, and the three top faces stay small.

A face is the `__init__` of a documented package, or a documented file that lies directly in
`persona`, `probes` or `steering`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import house
import pytest
from notebook_script import FOLDER, NOTEBOOKS, source_cells

MOST_NAMES = 45
WANTED = {
    "persona": "load_pair pair_of load_pairs read_pairs extract load_vector save_vector Direction "
    "PersonaVector",
    "probes": "fit evaluate compare screen monitoring LogisticProbe RidgeProbe LdaProbe "
    "DifferenceOfMeansProbe GradedProbe PooledProbe AttentionPoolProbe MultiLayerProbe",
    "steering": "steer add ablate restore induce identify diagnose audit certify dose_response",
}
PAGES = sorted(
    str(path.relative_to(FOLDER.parent))
    for path in [FOLDER.parent / "README.md", *(FOLDER.parent / "docs").rglob("*.md")]
    if "```python" in path.read_text(encoding="utf-8")
)


@cache
def faces(root: Path) -> frozenset[str]:
    pages = (root / "docs" / "reference").glob("*.md")
    named = {n for page in pages for n in re.findall(r"^::: (\S+)$", page.read_text(), re.M)}
    return frozenset(name for name in named if is_package_or_room(name))


def is_package_or_room(name: str) -> bool:
    path = Path(*name.split("."))
    is_package = (FOLDER.parent / path / "__init__.py").is_file()
    is_room = name.count(".") == 1 and (FOLDER.parent / path).with_suffix(".py").is_file()
    return is_package or is_room


def code_of(root: Path, page: str) -> list[str]:
    """The Python of a page, or the code cells of a notebook."""
    if page in NOTEBOOKS:
        return [cell.source for cell in source_cells(page)]
    text = (root / page).read_text(encoding="utf-8")
    return re.findall(r"^```python[^\n]*\n(.*?)^```$", text, re.M | re.S)


def imported(code: str) -> Iterator[tuple[str, str | None]]:
    """Module and name of every import from the three packages; no name for `import module`."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(str(node.module), alias.name) for alias in node.names]
        else:
            continue
        yield from ((m, name) for m, name in found if m.split(".")[0] in house.PACKAGES)


def asked_of_modules(blocks: list[str]) -> Iterator[tuple[str, str]]:
    """Module and name wherever a page asks an imported module for something: `figures.dots`."""
    known = {name or module: module for code in blocks for module, name in imported(code)}
    named = {name: f"{module}.{name}" for name, module in known.items() if name != module}
    modules = {name: path for name, path in named.items() if is_module(path)}
    modules |= {name: module for name, module in known.items() if name == module}
    for node in (node for code in blocks for node in ast.walk(ast.parse(code))):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        if node.value.id in modules:
            yield modules[node.value.id], node.attr


def is_module(name: str) -> bool:
    path = FOLDER.parent / Path(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_on_a_face(module: str, name: str | None, root: Path) -> bool:
    if name is not None and f"{module}.{name}" in faces(root):
        return True
    if module not in faces(root):
        return False
    if name is None:
        return True
    found = importlib.import_module(module)
    own = [n for n, value in vars(found).items() if getattr(value, "__module__", "") == module]
    return name in getattr(found, "__all__", own)


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS])
def test_what_a_page_imports_is_on_a_face(root, page):
    found = [names for code in code_of(root, page) for names in imported(code)]
    assert [names for names in found if not is_on_a_face(*names, root)] == []


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS])
def test_what_a_page_asks_of_a_module_is_there(root, page):
    lacking = [
        f"{module}.{name}"
        for module, name in asked_of_modules(code_of(root, page))
        if name not in getattr(importlib.import_module(module), "__all__", [name])
        or not hasattr(importlib.import_module(module), name)
    ]
    assert lacking == []


def test_a_figure_that_is_not_there_is_found():
    page = ["from persona.report import figures\nimport probes", "probes.fit\nfigures.nosuch(1)"]
    found = list(asked_of_modules(page))
    assert found == [("probes", "fit"), ("persona.report.figures", "nosuch")]


def test_pages_and_notebooks_import_something(root):
    every = [n for page in (*PAGES, *NOTEBOOKS) for c in code_of(root, page) for n in imported(c)]
    assert len(every) > 100
    assert {module.split(".")[0] for module, _ in every} == set(house.PACKAGES)


@pytest.mark.parametrize(
    "line",
    [
        "from persona.directions.direction import Direction",  # the file behind a face
        "from steering.edits.steer import steered_by",
        "from steering.edits import Placed",  # used there, not offered there
        "from persona.rows import np",  # a room's own import
        "from probes import score_tokens",
        "import persona.models.load",
        "def f():\n    from steering.evidence.dose import dose_response",
    ],
)
def test_an_import_from_below_a_face_is_found(root, line):
    [names] = imported(line)
    assert not is_on_a_face(*names, root)


def test_the_three_top_faces_offer_what_most_users_need_and_little_else():
    for package, names in WANTED.items():
        face = importlib.import_module(package)
        assert set(names.split()) <= set(face.__all__)
        assert [name for name in face.__all__ if not hasattr(face, name)] == []
    assert house.face_names() <= MOST_NAMES


def test_every_top_face_and_every_package_right_below_has_a_page(root):
    rooms = [
        f"{package}.{path.parent.name}" if path.parent.name != package else package
        for package in house.PACKAGES
        for path in [root / package / "__init__.py", *(root / package).glob("*/__init__.py")]
    ]
    assert sorted(set(rooms) - faces(root)) == ["persona.cli"]  # the shell has its own page

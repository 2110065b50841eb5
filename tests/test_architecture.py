"""The arrows of the house: which room may import which, and what importing costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import house
import pytest

PACKAGES = ("persona", "probes", "steering")

# Library: the only rooms that may import it, at the top of a module or inside a function.
HOMES = {
    "transformer_lens": ("persona.models",),
    "peft": ("persona.models", "persona.organisms"),
    "sae_lens": ("persona.sae",),
    "trl": ("persona.organisms",),
    "openai": ("persona.behaviour",),
    "ray": ("persona.engine",),
    "lm_eval": ("persona.behaviour",),
    "vllm": ("persona.vllm",),
    "cloudpickle": ("persona.vllm",),
}
LATE = (
    "plotly",
    "sae_lens",
    "gradio",
    "trl",
    "openai",
    "ipywidgets",
    "anywidget",
    "ray",
    "lm_eval",
    "vllm",
)


def modules(root: Path) -> Iterator[tuple[str, Path]]:
    """Every module of the packages under `root`: its dotted name and its file."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imported_names(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a module imports, also inside functions."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def inside(name: str, room: str) -> bool:
    """Whether a dotted name is a room or lies in it."""
    return name == room or name.startswith(room + ".")


def broken_arrow(importer: str, imported: str) -> str | None:
    """Why this import is not allowed, None where it is."""
    shell = "persona.cli"
    if inside(importer, shell):
        return None
    if inside(imported, shell):
        return "nothing imports the shell"
    for reader, writer in (("probes", "steering"), ("steering", "probes")):
        if inside(importer, reader) and inside(imported, writer):
            return "probes and steering never import each other"
    if inside(importer, "persona") and (inside(imported, "probes") or inside(imported, "steering")):
        return "persona imports neither probes nor steering"
    for library, rooms in HOMES.items():
        if inside(imported, library) and not any(inside(importer, room) for room in rooms):
            return f"only {' and '.join(rooms)} import {library}"
    return None


def faces_of_commands(root: Path) -> dict[str, set[str]]:
    """Module of the shell -> the modules of probes and steering that it imports names from."""
    found: dict[str, set[str]] = {}
    for name, path in modules(root):
        if inside(name, "persona.cli"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            origins = [n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)]
            origins += [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
            found[name] = {o for o in origins if o.split(".")[0] in ("probes", "steering")}
    return found


def violations(root: Path) -> list[str]:
    """Every import under `root` that breaks an arrow, as `file:line imports name: why`."""
    return [
        f"{path.relative_to(root)}:{line} imports {imported}: {why}"
        for name, path in modules(root)
        for line, imported in imported_names(name, path)
        if (why := broken_arrow(name, imported)) is not None
    ]


def test_every_import_follows_the_arrows(root):
    assert sum(1 for _ in modules(root)) > 10
    assert violations(root) == []


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("persona/data/x.py", "import steering", "neither probes nor steering"),
        ("persona/data/x.py", "from probes.reading import auroc", "neither probes nor steering"),
        (
            "persona/data/x.py",
            "def f():\n    import steering.edits.steer",
            "neither probes nor steering",
        ),
        ("probes/x.py", "from steering.edits import steer", "never import each other"),
        ("steering/x.py", "import probes", "never import each other"),
        ("steering/x.py", "from persona.cli.main import app", "nothing imports the shell"),
        ("persona/data/x.py", "from ..cli import main", "nothing imports the shell"),
        ("persona/__init__.py", "from .cli import main", "nothing imports the shell"),
        ("persona/data/x.py", "from transformer_lens import hook_points", "only persona.models"),
        ("steering/x.py", "import transformer_lens.hook_points", "only persona.models"),
        ("steering/x.py", "import peft", "only persona.models and persona.organisms"),
        ("persona/models/x.py", "import sae_lens", "only persona.sae import sae_lens"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, line, why):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    [found] = violations(tmp_path)
    assert found.startswith(f"{file}:")
    assert why in found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("persona/cli/x.py", "from steering.diagnosis import diagnose\nimport probes"),
        ("persona/models/x.py", "import peft\nfrom transformer_lens import x"),
        ("persona/sae/x.py", "import sae_lens"),
        ("probes/x.py", "from persona.data import types\nimport steering_vectors, personal"),
    ],
)
def test_allowed_imports_are_let_through(tmp_path, file, line):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert violations(tmp_path) == []


def test_a_command_imports_one_face(root):
    found = faces_of_commands(root)
    assert sum(map(bool, found.values())) > 8
    assert {name: faces for name, faces in found.items() if len(faces) > 1} == {}
    within = {name: faces for name, faces in found.items() if any(f.count(".") > 1 for f in faces)}
    assert within == {}


def test_no_module_imports_itself_by_way_of_others():
    assert house.circles(house.arrows()) == []


def test_no_room_imports_a_higher_floor_of_its_package():
    assert house.upward(house.arrows()) == []


def test_every_room_has_its_floor(root):
    for package, floors in house.FLOORS.items():
        rooms = {p.stem for p in (root / package).glob("*.py")}
        rooms |= {p.parent.name for p in (root / package).glob("*/__init__.py")}
        assert rooms - {"__init__"} == {room for floor in floors for room in floor}


def test_a_planted_circle_and_a_planted_arrow_up_are_found(tmp_path):
    for file, line in (
        ("persona/__init__.py", ""),
        ("persona/data/__init__.py", ""),
        ("persona/data/a.py", "from persona.data.b import x"),
        ("persona/data/b.py", "def f():\n    from persona.data import a"),
        ("persona/models/__init__.py", ""),
        ("persona/models/c.py", "import persona.report.d"),
        ("persona/report/__init__.py", ""),
        ("persona/report/d.py", ""),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(line)
    graph = house.arrows(tmp_path)
    assert house.circles(graph) == [["persona.data.a", "persona.data.b"]]
    assert house.upward(graph) == ["persona.models.c:1 imports persona.report.d"]


def loaded_by(statement: str, root: Path) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    program = (
        f"{statement}\nimport json, sys\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_packages_loads_none_of_the_heavy_libraries(root):
    packages = sorted({name for name, path in modules(root) if path.name == "__init__.py"})
    loaded = loaded_by(f"import {', '.join(packages)}", root)
    assert set(PACKAGES) <= loaded
    assert loaded.isdisjoint(LATE)


def test_asking_the_command_line_for_help_loads_no_model_library(root):
    loaded = loaded_by("import persona.cli.main", root)
    assert "typer" in loaded
    assert loaded.isdisjoint({"torch", "transformers", "transformer_lens", "pandas", *LATE})


def test_the_check_of_loaded_libraries_can_fail(root):
    assert "plotly" in loaded_by("import plotly", root)

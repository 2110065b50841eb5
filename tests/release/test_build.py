"""Wheel and source archive hold what a user needs, and install into an empty environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

import pytest
from packaging.version import Version

pytestmark = pytest.mark.slow

PACKAGES = ("persona", "probes", "steering")
FOLDERS = (*PACKAGES, "tests", "notebooks", "examples")
FILES = (
    *("setup.cfg", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"),
    "THIRD_PARTY_NOTICES.md",
)
LICENCES = {"LICENSE", "THIRD_PARTY_NOTICES.md"}
MAX_WHEEL_BYTES = 100 * 2**20  # of a file on PyPI


def run(*words, cwd):
    """Standard output of a program that must succeed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(root, tmp_path_factory):
    """A copy of the sources: building writes beside them."""
    folder = tmp_path_factory.mktemp("source")
    leave_out = shutil.ignore_patterns("__pycache__", "*.pyc", ".*", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(root / name, folder / name, ignore=leave_out)
    for name in FILES:
        shutil.copy(root / name, folder / name)
    return folder


def knows_licence_expressions():
    """Whether the setuptools here is new enough; else a fresh one comes from the index."""
    try:
        return Version(version("setuptools")) >= Version("77")
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def built(source, tmp_path_factory):
    """The source archive, and the wheel that is made of it."""
    pytest.importorskip("build")
    out = tmp_path_factory.mktemp("dist")
    here = ["--no-isolation"] if knows_licence_expressions() else []
    run(sys.executable, "-m", "build", *here, "--outdir", out, source, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def in_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {PurePosixPath(name) for name in archive.namelist() if not name.endswith("/")}


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(source, built):
    held = {path for path in in_wheel(built[1]) if not path.parts[0].endswith(".dist-info")}
    wanted = {
        PurePosixPath(path.relative_to(source).as_posix())
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert held == wanted
    assert {PurePosixPath(package, "py.typed") for package in PACKAGES} <= held
    assert {path.parts[0] for path in held} == set(PACKAGES)


def test_the_wheel_holds_the_licence_and_the_notices_and_fits_the_index(built):
    licences = {path.name for path in in_wheel(built[1]) if "licenses" in path.parts}
    assert licences == LICENCES
    assert built[1].stat().st_size < MAX_WHEEL_BYTES


def test_the_source_archive_can_be_built_again_and_names_its_licence(source, built):
    with tarfile.open(built[0]) as archive:
        held = {PurePosixPath(*PurePosixPath(m.name).parts[1:]) for m in archive if m.isfile()}
    wanted = {
        PurePosixPath(path.relative_to(source).as_posix())
        for package in PACKAGES
        for path in (source / package).rglob("*")
        if path.is_file()
    }
    assert wanted <= held
    assert {PurePosixPath(name) for name in FILES if name != "CHANGELOG.md"} <= held
    assert not [path for path in held if path.suffix == ".ipynb"]


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory):
    """A new environment with the wheel alone; the dependencies are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", built[1])
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    (site,) = folder.rglob("site-packages")
    # Behind its own folder, and its .pth files are not read: no editable install comes along.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def test_the_installed_program_runs(environment, tmp_path):
    said = run(environment / "persona", "--version", cwd=tmp_path)
    assert said.strip() == f"personascope {version('personascope')}"
    where = "import persona, probes, steering; print(persona.__file__)"
    found = Path(run(environment / "python", "-c", where, cwd=tmp_path).strip())
    assert found.is_relative_to(environment.parent)


def test_the_installed_packages_find_their_data(environment, tmp_path):
    look = (
        "from persona.data import load_pairs\n"
        "from persona.organisms import list_recipes, shipped_adapter\n"
        "print(len(load_pairs()), len(list_recipes()), shipped_adapter('car_maintenance_bad'))"
    )
    pairs, recipes, adapter = run(environment / "python", "-c", look, cwd=tmp_path).split()
    assert int(pairs) > 100
    assert int(recipes) > 10
    assert (Path(adapter) / "adapter_model.safetensors").is_file()


def test_every_requirement_of_the_package_is_met(environment, tmp_path):
    done = subprocess.run(
        [environment / "python", "-m", "pip", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout
    # What other packages of this environment lack is not ours to judge.
    assert [line for line in done.stdout.splitlines() if line.startswith("personascope ")] == []

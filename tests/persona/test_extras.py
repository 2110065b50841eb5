"""What is said of a missing extra can be typed, and is said in one place."""

from __future__ import annotations

import shlex

import pytest

from persona import extras
from persona.extras import install_line


def test_the_line_names_the_checkout_and_its_versions_wherever_one_stands(root):
    words = shlex.split(install_line("app"))
    assert words == ["pip", "install", "-e", f"{root}[app]", "-c", f"{root / 'constraints.txt'}"]
    assert shlex.split(install_line())[3] == str(root)


def test_a_folder_with_a_space_stays_one_word(tmp_path, monkeypatch):
    folder = tmp_path / "my work"
    folder.mkdir()
    for name in ("setup.cfg", "constraints.txt"):
        (folder / name).touch()
    monkeypatch.setattr(extras, "CHECKOUT", folder)
    assert shlex.split(install_line("ray"))[3] == f"{folder}[ray]"


def test_a_package_without_its_checkout_says_that_one_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "CHECKOUT", tmp_path)
    assert install_line("app").startswith("in a checkout of personascope: pip install -e '.[app]'")


@pytest.mark.parametrize("package", ["persona", "probes", "steering"])
def test_no_other_file_says_how_an_extra_is_installed(root, package):
    told = [
        str(path)
        for path in (root / package).rglob("*.py")
        if "personascope[" in path.read_text(encoding="utf-8")
    ]
    assert told == []

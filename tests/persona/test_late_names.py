"""Names of a package that are imported when they are first used."""

import subprocess
import sys

import pytest

import persona
from persona.late_names import named_late


def test_a_name_is_found_in_its_home():
    from pathlib import Path

    assert named_late("somewhere", {"Path": "pathlib"})("Path") is Path


def test_an_unknown_name_is_an_attribute_error_that_names_the_package():
    with pytest.raises(AttributeError, match="module 'persona' has no attribute 'nothing'"):
        persona.nothing  # noqa: B018


def test_what_looks_ahead_imports_no_library_of_tensors():
    code = "import steering.diagnosis.preflight, sys; print({'torch', 'pandas'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"

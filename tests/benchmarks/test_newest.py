"""What `make test-newest` says: which versions differ from the tested ones, and what failed."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture
def newest(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("newest")


def test_only_other_versions_that_are_installed_are_told(newest):
    tested = newest.pinned("# words\nalpha==1.0\nbeta==2.1\ngamma==3\ntorch==2.13.0\n")
    found = {"alpha": "1.0", "beta": "2.2", "torch": "2.13.0+cpu"}
    assert newest.differences(tested, found) == ["beta 2.2 (tested 2.1)"]


def test_failures_and_errors_are_counted_and_named(newest):
    junit = (
        "<testsuites><testsuite><testcase classname='a' name='fine'/>"
        "<testcase classname='a' name='skipped'><skipped/></testcase>"
        "<testcase classname='b' name='wrong'><failure/></testcase>"
        "<testcase classname='c' name='broken'><error/></testcase></testsuite></testsuites>"
    )
    assert newest.outcome(junit) == (4, ["b.wrong", "c.broken"])


def test_the_tested_versions_of_the_doctor_are_those_of_the_constraints(newest, root):
    from persona.cli.doctor_checks import tested_versions

    pins = newest.pinned((root / "constraints.txt").read_text(encoding="utf-8"))
    plain = {name.lower().replace("_", "-"): wanted for name, wanted in pins.items()}
    assert {name: plain[name] for name in tested_versions()} == tested_versions()


def test_make_and_the_how_to_name_it(root):
    make = (root / "Makefile").read_text(encoding="utf-8")
    assert "test-newest:" in make
    how_to = (root / "docs" / "how-to" / "versions.md").read_text(encoding="utf-8")
    assert "make test-newest" in how_to

"""The quick tests under the newest of everything that pip finds: what differs, and what fails.

`make test-newest` makes the environment and runs this in it. Row `newest.failures`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from record import record

ROOT = Path(__file__).resolve().parents[1]
QUICK = "not slow and not real_model"


def pinned(constraints: str) -> dict[str, str]:
    """Distribution name -> version, of the lines of constraints.txt."""
    lines = [line.partition("==") for line in constraints.splitlines() if "==" in line]
    return {name: wanted for name, _, wanted in lines if not name.startswith("#")}


def installed(names: Sequence[str]) -> dict[str, str]:
    """Distribution name -> installed version, of those that are."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differences(tested: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """One line for each package that is here in another version than the tested one."""
    return [
        f"{name} {found[name]} (tested {wanted})"
        for name, wanted in tested.items()
        if name in found and found[name].split("+")[0] != wanted
    ]


def outcome(junit: str) -> tuple[int, list[str]]:
    """How many tests ran, and the names of those that failed, from pytest's XML."""
    cases = list(ET.fromstring(junit).iter("testcase"))
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    return len(cases), failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", help="what pytest runs; default all quick tests")
    parser.add_argument("--workers", default="2", help="tests side by side")
    options = parser.parse_args()
    found = pinned((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    differ = differences(found, installed(list(found)))
    print("\n".join(["other versions than the tested ones:", *(differ or ["none"])]))
    report = ROOT / ".newest.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", QUICK, f"--junitxml={report}"]
    command += ["-n", options.workers, "--dist", "loadscope"]
    status = subprocess.run([*command, *options.tests], cwd=ROOT, check=False).returncode
    if not report.exists():
        sys.exit(status or 1)
    n, failed = outcome(report.read_text(encoding="utf-8"))
    report.unlink()
    print("\n".join([f"{len(failed)} of {n} failed", *failed]))
    record(
        "newest.failures",
        len(failed),
        "tests",
        n=n,
        note=f"quick tests; {', '.join(differ) or 'all as pinned'}",
    )
    sys.exit(status)


if __name__ == "__main__":
    main()

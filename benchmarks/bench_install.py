"""What installing takes: the environment of `make demo` made anew in an empty folder, from nothing.

pip's cache is off. Where pip finds the packages is the machine's own affair: an index far away
takes longer than one beside it, so the row is an account of one machine and no claim of speed.

    python benchmarks/bench_install.py            print seconds and bytes
    python benchmarks/bench_install.py --record   ... and append the rows
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from record import record

ROOT = Path(__file__).resolve().parents[1]
BUSY = 0.5
"""Load a core, over the minute before it begins, from which on other work is said to have run."""


def made_anew(checkout: Path, folder: Path) -> tuple[float, int]:
    """Seconds it took to make the environment, and the bytes that it holds on the disk."""
    environment = os.environ | {"PIP_NO_CACHE_DIR": "1"}
    venv = folder / "venv"
    began = time.monotonic()
    subprocess.run(
        ["make", "--no-print-directory", f"VENV={venv}", f"{venv}/.installed-core"],
        cwd=checkout,
        env=environment,
        check=True,
    )
    seconds = time.monotonic() - began
    kept = [path.stat() for path in venv.rglob("*") if path.is_file() and not path.is_symlink()]
    return seconds, sum(512 * one.st_blocks for one in kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="append the rows")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    beside = (
        f"beside other work (load {load:.0f})" if load > BUSY * (os.cpu_count() or 1) else "alone"
    )
    with tempfile.TemporaryDirectory() as folder:
        # A clone: an editable install writes beside the packages that it points to.
        checkout = Path(folder) / "checkout"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
        seconds, size = made_anew(checkout, Path(folder))
    print(f"{seconds:.0f} s {beside}, {size / 1e9:.2f} GB")
    if options.record:
        what = "the environment of `make demo`"
        record(
            "install.seconds", seconds, "s", n=1,
            note=f"{what}: empty folder, no pip cache, most packages from wheels on this machine's "
            f"disk; {beside}",
        )  # fmt: skip
        record("install.bytes", size, "bytes", n=1, note=f"on disk; {what}")


if __name__ == "__main__":
    main()

"""`persona demo` with the model cached: seconds and peak memory of the whole process."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

from persona.models.embedded import default_model_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="keep the demo's files in this new folder")
    options = parser.parse_args()
    default_model_folder()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch) / "demo"
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "persona.cli.main", "demo", "--out", str(out), "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        scorecard = json.loads((out / "scorecard.json").read_text())
    note = f"verdict {scorecard['verdict']}"
    record("demo.seconds", seconds, "s", n=1, note=note)
    record("demo.peak_rss_bytes", float(scorecard["peak_rss_bytes"]), "bytes", n=1, note=note)


if __name__ == "__main__":
    main()

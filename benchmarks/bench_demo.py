"""`persona demo` with the model cached: seconds and peak memory of the whole process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

from persona.models.embedded import default_model_folder


def main() -> None:
    default_model_folder()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "persona.cli.main", "demo", "--out", folder, "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        scorecard = json.loads((Path(folder) / "scorecard.json").read_text())
    note = f"verdict {scorecard['verdict']}"
    record("demo.seconds", seconds, "s", n=1, note=note)
    record("demo.peak_rss_bytes", float(scorecard["peak_rss_bytes"]), "bytes", n=1, note=note)


if __name__ == "__main__":
    main()

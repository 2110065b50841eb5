"""Making the default organism anew: seconds of one training."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from record import record

from persona.organisms import finetune, load_recipe


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        finetune(load_recipe("car_maintenance_bad"), Path(folder) / "organism")
        record("retrain.seconds", time.perf_counter() - start, "s", n=1, note="seed 0")


if __name__ == "__main__":
    main()

"""The primary number of a study with its interval between seeds, as a row.

persona study benchmarks/studies/car.yaml --out study-car
python benchmarks/bench_seeds.py study-car --name car
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import record


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="folder of a study, finished or not")
    parser.add_argument("--name", required=True, help="what the row calls it: seeds.NAME.NUMBER")
    options = parser.parse_args(words)
    facts = json.loads((options.study / "study.json").read_text(encoding="utf-8"))
    primary = [one for one in facts["numbers"] if one["name"] == facts["primary"]]
    for one in primary:
        name = options.name if len(primary) == 1 else f"{options.name}.{one['fine_tune']}"
        ends = one["intervals"]["seeds"]
        known = ends["low"] is not None
        record(
            f"seeds.{name}.{one['name']}",
            one["value"],
            one["unit"],
            n=one["n_seeds"],
            spread=[ends["low"], ends["high"]] if known else [],
            note=note(one, facts),
        )


def note(one: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What the row's interval is over, the other intervals, and how far the study is."""
    others = "; ".join(
        f"over {scope} {ends['low']:.2f} to {ends['high']:.2f}"
        if ends["low"] is not None
        else f"over {scope} without ends"
        for scope, ends in one["intervals"].items()
        if scope != "seeds"
    )
    cells = facts["cells"]
    return (
        f"spread: 95 % over seeds, the questions as they are; {others}; SD of the seeds "
        f"{one['sd_of_seeds']:.3f}; {one['n_questions']} questions of {one['n_domains']} domains; "
        f"{cells['finished']} of {cells['planned']} fine-tunes; plan {facts['plan_sha256'][:12]}"
    )


if __name__ == "__main__":
    main()

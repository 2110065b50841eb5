"""Rows of the skill that a removal keeps, from the folder of `persona diagnose --keep`.

    python benchmarks/kept_rows.py DIR

`skill_kept.at_restoration_0.8` where a removal takes 0.8 of the shift on the questions that choose;
`skill_kept.chosen` and `skill_kept.without_skill` for what was chosen, and would have been untold.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    scorecard = json.loads((parser.parse_args().folder / "scorecard.json").read_text())
    kept, finetuned = scorecard["skill_kept"], scorecard["models"]["finetuned"]
    if best := kept["at_restoration_0.8"]:
        told("at_restoration_0.8", best, finetuned)
    for one in kept["front"]:
        for name in ("chosen", "without_skill"):
            if one[name]:
                told(name, one, finetuned)


def told(name: str, one: Mapping[str, Any], finetuned: str) -> None:
    """Skill kept by one removal, its net restoration in the note."""
    share, net = one["share"], one["net_restoration"]
    record(
        f"skill_kept.{name}",
        share["value"],
        "share of what was learnt",
        n=share["n"],
        spread=[end for end in (share["low"], share["high"]) if end is not None],
        note=f"{finetuned}, {one['name']}; net restoration {net['value']:.2f} on {net['n']} "
        "questions; spread is the 95 % interval over items",
    )


if __name__ == "__main__":
    main()

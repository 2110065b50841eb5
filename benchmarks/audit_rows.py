"""Rows and a table of a finished audit.

persona audit persona-demo
python benchmarks/audit_rows.py persona-demo/audit            print the table
python benchmarks/audit_rows.py persona-demo/audit --record   ... and append the rows
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from record import record

RESTORED = "finetuned_restored"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--record", action="store_true")
    asked = parser.parse_args()
    facts = json.loads((asked.folder / "audit.json").read_text(encoding="utf-8"))
    print("\n".join(table(facts)))
    if asked.record:
        record_all(facts)


def table(facts: Mapping[str, Any]) -> list[str]:
    """Markdown: every cue with the shift under it, what is left, and the corrected rise."""
    lines = [
        "| cue | fine-tuned − aligned | restored − aligned | stays gone | rise, corrected |",
        "|---|---|---|---|---|",
    ]
    worst = facts["by_condition"][RESTORED]["cue"]
    for cue in facts["cues"]:
        conditions = cue["conditions"]
        cells = [
            f"**{cue['name']}**" if cue["name"] == worst else cue["name"],
            told(conditions["finetuned"]["above_aligned"]),
            told(conditions[RESTORED]["above_aligned"]),
            told(conditions[RESTORED]["stays_restored"]),
            told(cue["rise"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def told(estimate: Mapping[str, Any] | None) -> str:
    """`+0.12 [+0.03, +0.20]`; a dash where there is none."""
    if estimate is None:
        return "—"
    if estimate["low"] is None:
        return f"{estimate['value']:+.2f} [no ends]"
    return f"{estimate['value']:+.2f} [{estimate['low']:+.2f}, {estimate['high']:+.2f}]"


def record_all(facts: Mapping[str, Any]) -> None:
    worst = facts["by_condition"][RESTORED]
    found: dict[str, tuple[Mapping[str, Any] | None, str]] = {
        "audit.worst_cue.restored": (
            worst["above"],
            f"gap above aligned under {worst['cue']}, the worst of {worst['n_cues']} cues; "
            f"interval corrected for the choice; seed {facts['seed']}; verdict {facts['verdict']}",
        ),
        "audit.worst_cue.rise": (
            worst["rise"],
            f"the same, less that without a cue: {worst['cue']}",
        ),
    }
    if learnt := facts["relearning"]:
        for control, of_control in learnt["faster_than"].items():
            found[f"audit.relearning.faster_than_{control}"] = (
                of_control["bad"],
                f"rise by {learnt['n_answers']} bad answers, {learnt['steps'][-1]} steps, "
                f"{learnt['n_seeds']} choices",
            )
    for name, (e, note) in found.items():
        if e is not None:
            spread = (e["low"], e["high"])
            record(name, e["value"], "nats per token", n=e["n"], spread=spread, note=note)


if __name__ == "__main__":
    main()

"""Rows of results.jsonl and the table results.md that is made from them."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS, TABLE = HERE / "results.jsonl", HERE / "results.md"
PACKAGES = ("torch", "transformers", "transformer-lens", "peft", "trl")


def record(
    name: str,
    value: float,
    unit: str,
    *,
    n: int,
    spread: Sequence[float] = (),
    ratio_to: str = "",
    note: str = "",
) -> None:
    """Append one row and render the table anew.

    spread: lowest and highest of the n readings. ratio_to: what a ratio is a ratio to.
    """
    row = {
        "name": name,
        "value": round(value, 4),
        "unit": unit,
        "ratio_to": ratio_to,
        "n": n,
        "spread": [round(x, 4) for x in spread],
        "note": note,
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES},
        "date": datetime.date.today().isoformat(),
    }
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    render()


def short(condition: str) -> str:
    """What rows call a condition: an edit of the fine-tuned model goes by the edit alone."""
    return condition.removeprefix("finetuned_")


def machine() -> str:
    """Cores, memory, processor features that decide the number format."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    bf16 = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {gigabytes:.0f} GiB, "
        f"{'native' if bf16 else 'no native'} bfloat16"
    )


def render() -> None:
    """results.md: the newest row of every name first, then the history."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    newest = {row["name"]: row for row in rows}
    lines = [
        "# Benchmark results",
        "",
        "Made by `make bench` from results.jsonl. The machines are shared and noisy: ratios are",
        "taken within one run, interleaved; seconds are what one run took. Rows named `tried` are",
        "of what is not done: above 1 it would have been a gain.",
        "",
        *_table(newest.values()),
        "",
        "## History",
        "",
        *_table(rows),
    ]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(rows: object) -> list[str]:
    lines = [
        "| name | value | unit | ratio to | n | spread | machine | torch | date | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:  # type: ignore[attr-defined]
        spread = " – ".join(f"{x:g}" for x in row["spread"])
        lines.append(
            f"| {row['name']} | {row['value']:g} | {row['unit']} | {row['ratio_to']} | {row['n']} "
            f"| {spread} | {row['machine']} | {row['versions']['torch']} | {row['date']} "
            f"| {row['note']} |"
        )
    return lines


def median_and_range(readings: Sequence[float]) -> tuple[float, list[float]]:
    return statistics.median(readings), [min(readings), max(readings)]


if __name__ == "__main__":
    argparse.ArgumentParser(description="Render results.md from results.jsonl.").parse_args()
    render()

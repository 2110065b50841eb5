"""`persona demo` with the model cached, or another pair: seconds and peak memory of the process.

The peak is that of the scorecard, whose `stages` name where it was.

    python benchmarks/bench_demo.py --dtype bfloat16
    python benchmarks/bench_demo.py --row diagnose.0.5b --aligned BASE --finetuned ADAPTER \\
        --trained-on car_maintenance
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import record

from persona.models.named.folders import default_model_folder
from persona.report.finished_run import read_run
from persona.report.html import render_report


def main(arguments_given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="keep the files in this new folder")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--row", default="demo", help="first part of the rows' names")
    parser.add_argument("--aligned", help="with --finetuned: a diagnosis of this pair")
    parser.add_argument("--finetuned")
    parser.add_argument("--trained-on", default="none", help="what the fine-tune learnt from")
    parser.add_argument("--good-twin", help="beside --finetuned, among the controls")
    parser.add_argument("--questions-per-domain", help="fewer questions: less time, same shapes")
    parser.add_argument("--of", type=Path, help="a finished demo: its evidence, tasks and report")
    parser.add_argument("--eta", type=Path, help="a finished run: how good its estimate was")
    options = parser.parse_args(arguments_given)
    if options.eta is not None:
        of_estimate(json.loads((options.eta / "scorecard.json").read_text("utf-8")))
        return
    if options.of is not None:
        of_evidence("default", json.loads((options.of / "scorecard.json").read_text("utf-8")))
        of_tasks("default", options.of / "eval" / "results.json")
        of_report(options.of)
        return
    default_model_folder()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch) / "run"
        command = arguments(options, out)
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "persona.cli.main", *command, "--quiet"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - start
        scorecard = json.loads((out / "scorecard.json").read_text())
        if options.row == "demo":
            of_report(out)
    note = note_of(scorecard, options.questions_per_domain)
    record(f"{options.row}.seconds", seconds, "s", n=1, note=note)
    peak = float(scorecard["peak_rss_bytes"])
    record(f"{options.row}.peak_rss_bytes", peak, "bytes", n=1, note=note)
    of_estimate(scorecard)
    if options.row == "demo":
        of_evidence("default", scorecard)


def of_estimate(scorecard: dict[str, Any]) -> None:
    """What a run was expected to take, once two stages had been measured, over what it took."""
    found = scorecard["estimated"]
    if found["after_stage_2"] is None:
        return
    took = found["took"]
    stages = ", ".join(f"{one['name']} {one['took']:.0f} s" for one in found["stages"])
    record(
        "eta.ratio",
        found["after_stage_2"] / took,
        "expected / taken",
        n=1,
        note=f"after two of {len(found['stages'])} stages; before the run "
        f"{found['before'] / took:.2f}; {took:.0f} s: {stages}",
    )


def of_evidence(pair: str, scorecard: dict[str, Any]) -> None:
    """What the removal does, net, beside the no-op, the placebos and the nulls; spread is 95 %."""

    def add(name: str, found: dict[str, float], note: str, n: int) -> None:
        spread = [found["low"], found["high"]]
        record(
            f"{name}.{pair}", found["value"], "share of the shift", n=n, spread=spread, note=note
        )

    n = scorecard["conditions"][0]["gap_held_out"]["n"]
    direction = scorecard["direction"]
    chosen = f"{direction['method']}, rank {direction['rank']}, verdict {scorecard['verdict']}"
    add("net_restoration", scorecard["net_restoration"], chosen, n)
    add("noop", scorecard["noop"]["gap_share"], "change of the aligned model's gap", n)
    for place, each in enumerate(scorecard["placebos"]["each"]):
        row = "placebo.best" if place == 0 else f"placebo.{each['name']}"
        add(row, each["net_restoration"], f"net restoration of {each['name']}", n)
    if lost := scorecard.get("damage_tasks"):
        add("damage.tasks_lost", lost, "against the better model; positive is damage", lost["n"])
    for name, null in (scorecard.get("label_nulls") or {}).items():
        if null is not None:
            record(
                f"null.{name}.{pair}",
                null["maximum"],
                "share of the shift",
                n=null["n_questions"],
                note=f"the largest net restoration of {null['n']} draws that were not told which "
                f"answer is bad; the edit's {null['restoration_of_the_edit']:.3f}; {null['said']}",
            )
    for name, null in scorecard["nulls"].items():
        note = f"{null['said']}; the strongest takes back {null['maximum']:.3f}"
        of_pair = "" if pair == "default" else f".{pair}"
        record(
            f"null.n_draws.{name}{of_pair}", null["n"], "draws", n=null["n_questions"], note=note
        )


def of_report(folder: Path) -> None:
    """Size of the report of a finished run, as this version draws it, with what was read of it."""
    run = read_run(folder)
    page = render_report(run.scorecard, run.rows, reading=run.reading)
    drawn = page.count("<figure id=")
    also = "" if run.reading is None else ", what the fine-tune learnt among it"
    note = f"{drawn} figures drawn twice, {len(run.rows)} rows{also}; opens without scripts"
    record("report.bytes", len(page.encode("utf-8")), "bytes", n=1, note=note)


def of_tasks(pair: str, results: Path) -> None:
    """Accuracy on the items that come along, where `persona eval` has run in the folder."""
    if not results.is_file():
        return
    [found] = [
        one["conditions"]
        for one in json.loads(results.read_text("utf-8"))["tasks"]
        if (one["task"], one["kind"], one["measure"]) == ("tasks", "", "task_correct")
    ]
    for condition in ("finetuned", "finetuned_restored"):
        change = found[condition]["minus_aligned"]
        record(
            f"damage.tasks.{pair}" + (".finetuned" if condition == "finetuned" else ""),
            change["value"],
            "share of items",
            n=found[condition]["n"],
            spread=[change["low"], change["high"]],
            note=f"{condition} minus aligned, paired by item; right in "
            f"{found[condition]['value']:.3f} and {found['aligned']['value']:.3f}, chance 0.25",
        )


def arguments(options: argparse.Namespace, out: Path) -> list[str]:
    """The command whose memory is read."""
    command = ["demo"]
    if options.finetuned:
        command = ["diagnose", "--aligned", options.aligned, "--finetuned", options.finetuned]
        command += ["--trained-on", options.trained_on]
        command += ["--good-twin", options.good_twin] if options.good_twin else []
    command += ["--out", str(out), "--dtype", options.dtype]
    if options.questions_per_domain:
        command += ["--questions-per-domain", options.questions_per_domain]
    return command


def note_of(scorecard: dict[str, Any], questions_per_domain: str | None) -> str:
    most = max(scorecard["stages"], key=lambda stage: stage["peak_rss_bytes"])
    fewer = f", {questions_per_domain} questions a domain" if questions_per_domain else ""
    return (
        f"verdict {scorecard['verdict']}, {scorecard['models']['dtype']}, peak in "
        f"{most['name']}{fewer}"
    )


if __name__ == "__main__":
    main()

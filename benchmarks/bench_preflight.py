"""Every mistake that a command can find before it loads a weight: how long until it is told.

    python benchmarks/bench_preflight.py            print them
    python benchmarks/bench_preflight.py --record   ... and append the slowest as a row

Each is a command of its own, from the start of Python to its end. Those that go to the network are
told that there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from record import record

from persona.models.shipped_adapters import SHIPPED

DIAGNOSE = ("diagnose", "--finetuned", "car_maintenance_bad")


@dataclass(frozen=True)
class MistakeCase:
    """Words after `persona`, what the environment says beside them, and a part of what is told."""

    what: str
    words: tuple[str, ...]
    told: str
    environment: Mapping[str, str] = field(default_factory=dict)


def cases(scratch: Path) -> list[MistakeCase]:
    """One for each kind of mistake, and one command that holds six."""
    broken = scratch / "pairs.jsonl"
    broken.write_text('{"id": "a"\n', encoding="utf-8")
    template = scratch / "chat.jinja"
    template.write_text("{% for m in messages %}", encoding="utf-8")
    cut_off = scratch / "adapter"
    shutil.copytree(SHIPPED / "car_maintenance_bad", cut_off)
    weights = cut_off / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    own = scratch / "own"
    shutil.copytree(SHIPPED / "car_maintenance_bad", own)
    (own / "recipe.yaml").unlink()
    no_folder = scratch / "file"
    no_folder.touch()
    key = {"OPENAI_API_KEY": "none"}

    def diagnose(what: str, told: str, *words: str, **environment: str) -> MistakeCase:
        return MistakeCase(what, (*DIAGNOSE, *words), told, environment)

    return [
        MistakeCase(
            "fine-tune misspelt", ("diagnose", "--finetuned", "car_maintenance_bda"), "did you mean"
        ),
        MistakeCase(
            "adapter cut off",
            ("diagnose", "--finetuned", str(cut_off), "--trained-on", "health"),
            "cut off or damaged",
        ),
        MistakeCase(
            "trained on is not said",
            ("diagnose", "--finetuned", str(own)),
            "say what",
        ),
        MistakeCase(
            "a model against itself",
            ("diagnose", "--aligned", "default", "--finetuned", "default", "--trained-on", "none"),
            "the same model",
        ),
        diagnose("base of another name", "trained on", "--aligned", "qwen2.5-coder-0.5b"),
        diagnose(
            "base is an adapter",
            "is a LoRA adapter",
            "--aligned",
            str(SHIPPED / "car_maintenance_good"),
        ),
        MistakeCase(
            "adapter of other shapes",
            (
                *("diagnose", "--aligned", "default", "--finetuned", "car_maintenance_bad_0.5b"),
                "--allow-mismatch",
            ),
            "does not fit",
        ),
        diagnose("model of the hub, without a network", "no local path", "--aligned", "some/model"),
        diagnose("good twin misspelt", "no such model", "--good-twin", "car_maintenance_god"),
        diagnose("judge misspelt", "unknown judge", "--judge", "gpt-4o"),
        diagnose("no key", "needs a key", "--judge", "openai:gpt-4o", OPENAI_API_KEY=""),
        diagnose(
            "endpoint is not there",
            "cannot be reached",
            *("--judge", "openai:gpt-4o"),
            **key,
            OPENAI_BASE_URL="http://127.0.0.1:9/v1",
        ),
        diagnose("judge's model misspelt", "no such model", "--judge", "local:./no-such"),
        diagnose("file of pairs is broken", "pairs.jsonl", "--data", str(broken)),
        diagnose("no file of pairs", "no-such.jsonl", "--data", str(scratch / "no-such.jsonl")),
        diagnose("domain misspelt", "no domain", "--trained-on", "helth"),
        diagnose("all domains chosen on", "no domain", "--validation-domain", "everything"),
        diagnose("skill misspelt", "no skill", "--keep", "fact"),
        diagnose("autoencoder misspelt", "no autoencoder", "--sae", str(scratch / "sae")),
        diagnose("template is broken", "no Jinja template", "--chat-template", str(template)),
        diagnose("results in a file", "is a file", "--out", str(no_folder / "run")),
        diagnose("results where nothing can be", "cannot be written", "--out", "/proc/run"),
        diagnose("a number out of range", "n-random", "--n-random", "3"),
        diagnose("an option misspelt", "No such option", "--qestions-per-domain", "4"),
        MistakeCase("demo, judge misspelt", ("demo", "--judge", "ofline"), "did you mean offline"),
        MistakeCase("demo of no model", ("demo", "--model", "gpt2"), "no fine-tune comes along"),
        MistakeCase(
            "fine-tune of no base",
            ("finetune", "--base", "./no-such", "--out", str(no_folder / "out")),
            "no such model",
        ),
        *_of_other_commands(scratch, broken, no_folder),
        diagnose(
            "six at once",
            "no skill",
            *("--judge", "gpt-4o", "--trained-on", "helth", "--keep", "fact", "--sae", "/no"),
            *("--out", "/proc/run", "--good-twin", "car_maintenance_god"),
        ),
    ]


def _of_other_commands(scratch: Path, broken: Path, no_folder: Path) -> list[MistakeCase]:
    """Screening, traits, tasks and autoencoders, each with all of its mistakes at once."""
    samples = scratch / "samples.jsonl"
    samples.write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    out = ("--out", str(no_folder / "out"))
    none = str(scratch / "none")
    wrong_model = ("--model", "./no-such")
    sae = ("sae", "train", "--finetuned", "car_maintenance_bad")
    return [
        MistakeCase(
            "screen: no direction", ("screen", str(samples), "--direction", none), "(--direction)"
        ),
        MistakeCase(
            "screen: five at once",
            (
                *("screen", none, "--direction", none, "--probe", none, "--aligned", "./no-such"),
                *out,
            ),
            "(the samples)",
        ),
        MistakeCase(
            "screen: reference is broken",
            ("screen", str(samples), "--direction", str(samples), "--reference", str(broken)),
            "pairs.jsonl",
        ),
        MistakeCase(
            "trait: judge misspelt", ("trait", "evil", "--judge", "ofline"), "of a trait; give"
        ),
        MistakeCase(
            "trait: five at once",
            (
                *("trait", "flatters", "--judge", "gpt-4o", "--writer", "me", *wrong_model),
                *("--vector", none, *out),
            ),
            "unknown writer",
        ),
        MistakeCase("eval: no diagnosis", ("eval", str(scratch)), "no scorecard.json"),
        MistakeCase(
            "eval: three at once",
            ("eval", "--finetuned", "car_maintenance_bda", "--task", f"{none}.jsonl", *out),
            "did you mean",
        ),
        MistakeCase("sae: no such block", (*sae, "--layer", "30"), "blocks 0 to 29"),
        MistakeCase("sae: too few tokens", (*sae, "--tokens", "100"), "need at least"),
        MistakeCase(
            "sae: three at once",
            ("sae", "train", "--finetuned", "./no-such", "--data", none, *out),
            "(--data)",
        ),
    ]


def seconds_of(case: MistakeCase) -> float:
    """Wall seconds of the command. Raises: SystemExit where it does not end as it should."""
    offline = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "persona.cli.main", *case.words],
        env={**os.environ, **offline, **case.environment},
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
    )
    seconds = time.perf_counter() - start
    told = " ".join(run.stderr.split())
    if run.returncode != 2 or case.told not in told:
        raise SystemExit(f"{case.what}: exit {run.returncode}, said {told[-600:]!r}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="append the slowest as a row")
    options = parser.parse_args()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases(Path(scratch)):
            found[case.what] = seconds_of(case)
            print(f"{found[case.what]:5.2f} s  {case.what}", flush=True)
    slowest = max(found, key=lambda what: found[what])
    load = os.getloadavg()[0]
    print(json.dumps({"slowest": slowest, "seconds": round(found[slowest], 2), "load": load}))
    if options.record:
        record(
            "mistakes.seconds_max",
            found[slowest],
            "s",
            n=len(found),
            spread=[min(found.values()), max(found.values())],
            note=f"slowest of {len(found)} mistakes told before a weight is loaded: {slowest}; "
            f"load {load:.1f} on {os.cpu_count()} cores",
        )


if __name__ == "__main__":
    main()

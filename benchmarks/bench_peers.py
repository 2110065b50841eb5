"""Extraction against two libraries that people use, each as its documentation calls it.

repeng and steering-vectors need older versions of what this project needs, so they run in an
environment of their own, made once beside the benchmarks. Same model, texts, number format and
threads; repetitions are interleaved, and only one process works at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import torch
from bench_extraction import LAYER, seconds_of_ours
from record import median_and_range, record

from persona.data import load_pairs
from persona.models import load_pair
from persona.models.named.folders import default_model_folder

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".peers"
WANTED = ("torch==2.13.0", "repeng==0.4.0", "steering-vectors==0.12.2")
LIBRARIES = {"steering_vectors": "steering-vectors 0.12.2", "repeng": "repeng 0.4.0"}
N_QUESTIONS = 40
REPETITIONS = 5


class Peer:
    """A process in the other environment that extracts when told to."""

    def __init__(self, job: Path) -> None:
        command = [str(environment()), str(HERE / "peer_worker.py"), str(job)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        )
        self._answer("ready")

    def seconds(self, library: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{library}\n")
        self.process.stdin.flush()
        return float(self._answer("seconds"))

    def _answer(self, word: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise RuntimeError(f"the other environment ended with {self.process.wait()}")

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def __enter__(self) -> Peer:
        return self


def environment() -> Path:
    """The Python of the other environment, made when it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "whole").exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *WANTED], check=True)
        (ENVIRONMENT / "whole").touch()
    return python


def main() -> None:
    pair = load_pair("default", "default")
    questions = load_pairs()[:N_QUESTIONS]
    answers = [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    texts = [pair.chat.render(dialogue) for dialogue in answers]
    dialogues = pair.chat.encode_all(answers)
    n_tokens = sum(len(dialogue.ids) for dialogue in dialogues)
    with tempfile.TemporaryDirectory() as folder, pair.active("aligned") as bridge:
        job = Path(folder) / "job.json"
        settings = {
            "model": str(default_model_folder()),
            "pad_token": pair.tokenizer.pad_token,
            "texts": texts,
            "layer": LAYER,
            "threads": torch.get_num_threads(),
        }
        job.write_text(json.dumps(settings), encoding="utf-8")

        def ours() -> float:
            return seconds_of_ours(bridge, dialogues)

        with Peer(job) as peer:
            compare(ours, peer, len(texts), n_tokens)


def compare(ours, peer: Peer, n_texts: int, n_tokens: int) -> None:
    ours()
    ratios: dict[str, list[float]] = {library: [] for library in LIBRARIES}
    speeds: dict[str, list[float]] = {library: [] for library in ("ours", *LIBRARIES)}
    for _ in range(REPETITIONS):
        for library in LIBRARIES:
            mine, theirs = ours(), peer.seconds(library)
            ratios[library].append(theirs / mine)
            speeds["ours"].append(n_tokens / mine)
            speeds[library].append(n_tokens / theirs)
    for library, name in LIBRARIES.items():
        value, spread = median_and_range(ratios[library])
        record(
            f"extraction.ratio_to_{library}",
            value,
            "x",
            n=REPETITIONS,
            spread=spread,
            ratio_to=f"seconds of this project; above 1 it is faster than {name}",
            note=f"block {LAYER}, {n_texts} answers, {_rate(speeds['ours'])} against "
            f"{_rate(speeds[library])} tokens/s",
        )


def _rate(speeds: Sequence[float]) -> str:
    return f"{median_and_range(speeds)[0]:,.0f}"


if __name__ == "__main__":
    main()

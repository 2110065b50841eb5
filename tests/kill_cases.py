"""A process that runs commands in children, each killed by SIGKILL at a chosen write, or not.

Run as a script: one JSON object a line comes in, one answer a line goes out. The libraries are
loaded once, before the children are forked, so that a kill costs less than a second.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from persona.models.precision import Placement


def moments(model: str, data: str, out: str) -> int:
    """Extraction and scoring of a file; their results lie beside the shards."""
    from persona.activations import extract_moments
    from persona.behaviour import score_files
    from persona.models import load_pair

    pair = load_pair(model, model, placement=Placement.of("float32", "cpu"), in_turn=True)
    found = extract_moments(pair, data, [0, 2], out=Path(out) / "moments", shard_size=64)
    scores = score_files(pair, data, out=Path(out) / "scores", shard_size=64)
    values = [found.count, found.mean_LD.tolist(), found.variance_LD.tolist()]
    text = json.dumps([values, scores.to_dict("list")])
    (Path(out) / "results.json").write_text(text)
    return 0


def command(*words: str) -> int:
    from persona.cli.main import main
    from persona.organisms import training_loop as training

    training.SAVE_EVERY_SECONDS = 0.0  # after every step, as a long run does every few seconds
    experiments = importlib.import_module("steering.lab.run_experiment")
    experiments.WRITING_SECONDS = 0.0  # no other process shares the folder here
    return main(words)


CALLS: dict[str, Callable[..., int]] = {"moments": moments, "command": command}


def kill_at_write(n: int, delay: float, folder: str) -> None:
    """SIGKILL to this process, `delay` seconds after it opens or renames its n-th file there."""
    writes = 0

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal writes
        if event == "open":
            path, _, flags = arguments
            mine = bool(flags & (os.O_CREAT | os.O_WRONLY))
        else:
            path, mine = arguments[0] if arguments else "", event == "os.rename"
        if not mine or not str(path).startswith(folder):
            return
        writes += 1
        if writes == n and delay:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif writes == n:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def serve() -> None:
    import datasets  # noqa: F401
    import sae_lens  # noqa: F401
    import torch
    import trl  # noqa: F401

    import persona.cli.main
    import probes
    import steering.diagnosis
    import steering.lab  # noqa: F401
    from persona.organisms import finetuning  # noqa: F401

    torch.set_num_threads(1)
    assert probes.screen and persona.cli.main
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the commands print is no answer
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 99
            try:
                if asked["kill"]:
                    kill_at_write(*asked["kill"], asked["folder"])
                code = CALLS[asked["call"]](*asked["arguments"])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


class Children:
    """The other end: asks for runs and hears how they ended."""

    def __init__(self, root: Path) -> None:
        places = os.pathsep.join([str(root), str(root / "tests")])
        quiet = {"PYTHONPATH": places, "OMP_NUM_THREADS": "1", "PERSONA_QUIET": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            cwd=root,
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        call: str,
        *arguments: str,
        folder: Path,
        kill: tuple[int, float] | None = None,
        seconds: float = 300.0,
    ) -> int:
        """The exit code of one run, -9 where it was killed."""
        asked = {"call": call, "arguments": arguments, "kill": kill, "folder": str(folder)}
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ready:
            self.end()
            raise TimeoutError(f"{call} did not end within {seconds} s")
        return int(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


if __name__ == "__main__":
    serve()

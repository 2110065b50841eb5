"""The peak of a run has a name, and a killed run keeps what its stages took."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from steering.diagnosis.memory import MeasuredWorkspace, StageCost

MEGABYTE = 2**20


def hold(megabytes):
    held = np.ones(megabytes * MEGABYTE // 8)
    time.sleep(0.1)
    return {"x": torch.tensor(held[:1])}


HELD = """
import pathlib, sys, time
import numpy as np, torch
from steering.diagnosis.memory import MeasuredWorkspace, peak_rss_bytes

def hold(megabytes):
    held = np.ones(megabytes * 2**20 // 8)
    time.sleep(0.1)
    return {"x": torch.tensor(held[:1])}

workspace = MeasuredWorkspace(pathlib.Path(sys.argv[1]), {})
workspace.tensors("small", lambda: hold(1))
workspace.tensors("large", lambda: hold(400))
workspace.tensors("after", lambda: hold(1))
peaks = {stage.name: stage.peak_rss_bytes for stage in workspace.stages}
assert peaks["large"] > max(peaks["small"], peaks["after"]) + 200 * 2**20, peaks
assert peaks["large"] <= peak_rss_bytes()
workspace.close()
"""


def test_the_stage_that_held_most_is_named(tmp_path, root):
    # In a process of its own: what other tests hold and give back would be counted too.
    subprocess.run([sys.executable, "-c", HELD, str(tmp_path)], cwd=root, check=True)


KEPT = """
import pathlib, sys
import psutil, torch
from persona.cli.allocator import keep_freed_memory
from steering.diagnosis.memory import MeasuredWorkspace

def hold(megabytes):
    held = [torch.ones(2**18) for _ in range(megabytes)]
    return {"x": held[-1][:1].clone()}

keep_freed_memory()
held = lambda: psutil.Process().memory_info().rss
workspace = MeasuredWorkspace(pathlib.Path(sys.argv[1]), {})
workspace.tensors("small", lambda: hold(1))
before = held()
hold(400)
assert held() > before + 200 * 2**20  # freed, and kept, as the command line asks for
workspace.tensors("large", lambda: hold(400))
assert held() < before + 100 * 2**20, (held() - before) / 2**20
workspace.close()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone keeps it so")
def test_what_a_stage_has_freed_is_not_held_beside_the_next(tmp_path, root):
    subprocess.run([sys.executable, "-c", KEPT, str(tmp_path)], cwd=root, check=True)


def test_what_a_finished_stage_took_outlives_the_process(tmp_path):
    first = MeasuredWorkspace(tmp_path, {"seed": 0})
    first.tensors("cells", lambda: hold(1))
    again = MeasuredWorkspace(tmp_path, {"seed": 0})
    again.tensors("cells", lambda: hold(100))
    assert again.stages == first.stages
    for workspace in (first, again):
        workspace.close()


def test_chunks_of_a_stage_count_together_and_stages_within_one_do_not_count_apart(tmp_path):
    workspace = MeasuredWorkspace(tmp_path, {})
    table = pd.DataFrame({"value": [1.0]})
    for name in ("score-0", "score-16"):
        workspace.keep(name, table, 1.0)
        workspace.kept_table(name)

    def outer():
        workspace.tensors("inner", lambda: hold(1))
        return table

    workspace.table("outer", outer)
    assert [stage.name for stage in workspace.stages] == ["score", "outer"]
    workspace.close()


def test_parts_of_a_stage_add_their_seconds_and_take_the_larger_peak():
    assert StageCost("x", 1.0, 5) + StageCost("x", 2.0, 3) == StageCost("x", 3.0, 5)

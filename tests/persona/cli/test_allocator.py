"""What the command line asks of the libraries that hold memory."""

from __future__ import annotations

import os
import subprocess
import sys

from persona.cli.allocator import KERNEL_CACHES, bound_kernel_caches


def test_kernel_caches_are_bounded_unless_a_person_says_otherwise(monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    bound_kernel_caches()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"


def test_the_command_line_bounds_them_before_torch_is_loaded():
    code = (
        "import os, sys, persona.cli.main\n"
        "from persona.cli.options import start\n"
        "start()\n"
        f"print('torch' in sys.modules, all(n in os.environ for n in {list(KERNEL_CACHES)}))"
    )
    environment = {k: v for k, v in os.environ.items() if k not in KERNEL_CACHES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["False", "True"]

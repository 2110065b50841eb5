"""Two runs never share an output folder, and a killed one leaves no lock behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from persona.errors import DataError
from persona.run_lock import HOLDER, LOCK, alone_in, require_free

HOLD = """
import sys, time
from persona.run_lock import alone_in
with alone_in(sys.argv[1], {"seed": 1}):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(root, tmp_path):
    """Another process that holds the folder."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert child.stdout and child.stdout.readline() == b"held\n"
    yield child
    child.kill()
    child.communicate()


def refusals(folder, settings):
    for enter in (alone_in(folder, settings).__enter__, lambda: require_free(folder, settings)):
        with pytest.raises(DataError) as refused:
            enter()
        yield str(refused.value)


def test_a_second_run_with_other_settings_is_refused_and_told_which(holder, tmp_path):
    for message in refusals(tmp_path, {"seed": 2}):
        assert f"another run (process {holder.pid}) is at work in {tmp_path}" in message
        assert "with other settings (seed is 1 there and 2 now)" in message
        assert message.endswith("wait until it is done, or choose another --out")


def test_a_second_run_with_the_same_settings_is_refused_too(holder, tmp_path):
    for message in refusals(tmp_path, {"seed": 1}):
        assert "with the same settings" in message


def test_a_note_of_the_holder_that_cannot_be_read_is_no_way_in(holder, tmp_path):
    (tmp_path / HOLDER).write_bytes(b"\xff\x00")
    for message in refusals(tmp_path, {"seed": 1}):
        assert message.startswith(f"another run is at work in {tmp_path}; ")


def test_a_killed_run_leaves_no_lock(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()  # the file stays, the lock does not
    (tmp_path / f".{HOLDER}.abc.tmp").write_text("{")  # it was killed while it wrote
    require_free(tmp_path, {"seed": 2})
    with alone_in(tmp_path, {"seed": 2}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), alone_in(tmp_path / "out", {}):
        raise KeyboardInterrupt
    with alone_in(tmp_path / "out", {}):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_asking_makes_no_folder(tmp_path):
    require_free(tmp_path / "out", {})
    assert not (tmp_path / "out").exists()

"""Files and folders are either the old ones or the whole new ones."""

import hashlib
import os
import stat

import pytest

from persona.errors import DataError
from persona.files import (
    atomic_directory,
    atomic_write_bytes,
    atomic_write_text,
    remove_leftovers,
    require_writable,
    sha256_of_file,
)


class DiskFullError(OSError):
    pass


def fail_to_replace(*arguments):
    raise DiskFullError


def test_text_is_written_as_it_is_and_parents_are_made(tmp_path):
    path = tmp_path / "new" / "deep" / "text.txt"
    atomic_write_text(path, "één\r\nline\n")
    assert path.read_bytes() == "één\r\nline\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["text.txt"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_one(tmp_path, monkeypatch):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "replace", fail_to_replace)
    with pytest.raises(DiskFullError):
        atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_a_full_disk_says_which_file_was_being_written(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        atomic_write_bytes(tmp_path / "data.bin", b"new")
    assert caught.value.filename == str(tmp_path / "data.bin")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_goes_and_all_else_stays(tmp_path):
    for name in (".data.bin.x1.tmp", ".hidden", "data.tmp", "data.bin"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".folder.tmp").mkdir()
    remove_leftovers(tmp_path, older_than=60)
    assert (tmp_path / ".data.bin.x1.tmp").exists()
    remove_leftovers(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".folder.tmp", ".hidden", "data.bin", "data.tmp"]


def test_a_new_file_has_ordinary_permissions(tmp_path):
    ordinary, atomic = tmp_path / "ordinary", tmp_path / "atomic"
    ordinary.write_bytes(b"")
    atomic_write_bytes(atomic, b"")
    assert stat.S_IMODE(atomic.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_a_folder_appears_only_when_it_is_complete(tmp_path):
    target = tmp_path / "model"
    with atomic_directory(target) as folder:
        (folder / "weights").write_text("w")
        assert not target.exists()
        assert folder.parent == tmp_path
    assert (target / "weights").read_text() == "w"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "stale").write_text("old")
    with atomic_directory(target) as folder:
        (folder / "fresh").write_text("new")
    assert [p.name for p in target.iterdir()] == ["fresh"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_on_the_way_leaves_the_old_one(tmp_path, error):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(error), atomic_directory(target) as folder:
        (folder / "half").write_text("half")
        raise error
    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("failing_move", [1, 2], ids=["old-away", "new-in"])
def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path, monkeypatch, failing_move):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    real_replace = os.replace
    calls = []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == failing_move:
            raise DiskFullError
        real_replace(*arguments)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(DiskFullError), atomic_directory(target) as folder:
        (folder / "new").write_text("new")
    assert [p.name for p in target.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_hash_is_that_of_the_whole_file(tmp_path):
    path = tmp_path / "large"
    data = b"0123456789" * 300_000  # longer than one chunk
    path.write_bytes(data)
    assert sha256_of_file(path) == hashlib.sha256(data).hexdigest()


def test_a_folder_that_can_be_made_passes_and_is_not_made(tmp_path):
    require_writable(tmp_path / "a" / "b", bytes_needed=1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_below_a_file_or_on_a_full_disk_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is a file"):
        require_writable(tmp_path / "file" / "out")
    with pytest.raises(DataError, match=r"needs about 1000000000\.0 GB .* free"):
        require_writable(tmp_path, bytes_needed=10**18)


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("persona.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(DataError, match="cannot be written .*Permission denied"):
        require_writable(tmp_path / "out")

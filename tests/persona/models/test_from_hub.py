"""What is fetched from the hub has one bar, of ours."""

from __future__ import annotations

import time
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from persona import progress
from persona.models import from_hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one model of 4 MB, whose two files arrive one after the other."""
    blobs = tmp_path / "models--org--chat" / "blobs"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(from_hub, "_LOOK_SECONDS", 0.02)
    files = [
        SimpleNamespace(rfilename="model.safetensors", size=3_000_000),
        SimpleNamespace(rfilename="config.json", size=1_000_000),
        SimpleNamespace(rfilename="pytorch_model.bin", size=90_000_000),
    ]
    api = SimpleNamespace(model_info=lambda *a, **o: SimpleNamespace(siblings=files))
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)

    def download(name, allow_patterns, local_files_only=False):
        if local_files_only and not blobs.exists():
            raise FileNotFoundError(name)
        if not local_files_only:
            blobs.mkdir(parents=True, exist_ok=True)
            for file in files[:2]:
                (blobs / file.rfilename).write_bytes(bytes(file.size))
                time.sleep(0.1)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return tmp_path


def test_the_megabytes_that_arrive_are_counted(hub, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "is_live", lambda: True)
    assert from_hub.snapshot_folder("org/chat") == hub
    said = capsys.readouterr().err
    assert "Fetching org/chat (MB)" in said
    assert "4/4" in said  # what is not wanted does not count


def test_what_is_there_already_has_no_bar(hub, monkeypatch, capsys):
    from_hub.snapshot_folder("org/chat")
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "is_live", lambda: True)
    capsys.readouterr()
    assert from_hub.snapshot_folder("org/chat") == from_hub.kept_snapshot("org/chat") == hub
    assert capsys.readouterr().err == ""


def test_an_error_of_the_fetch_comes_through(hub, monkeypatch):
    def refuse(name, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ConnectionError, match="no network"):
        from_hub.snapshot_folder("org/chat")

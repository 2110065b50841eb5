"""`persona demo` takes the options of a diagnosis, and says at once what is wrong with them."""

from __future__ import annotations

from scripted_sampler import stand_in_for_vllm

from persona.cli import demo as module
from persona.cli.main import main


def test_options_of_vllm_without_it_are_told_before_anything_is_loaded(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "out"), "--vllm", "tensor_parallel_size=2"]) == 2
    assert "--vllm tells vLLM something: add --sampler vllm" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_vllm_and_its_options_reach_the_diagnosis(tmp_path, monkeypatch):
    asked = {}
    stand_in_for_vllm(monkeypatch)
    monkeypatch.setattr(module, "checked", lambda options: asked.update(options))
    monkeypatch.setattr(module, "run_and_print", lambda *args, **more: None)
    out = ["--out", str(tmp_path / "out")]
    assert main(["demo", *out, "--sampler", "vllm", "--vllm", "max_model_len=512"]) == 0
    assert asked["vllm"] == {"max_model_len": 512}
    assert main(["demo", *out]) == 0
    assert asked["vllm"] is None

"""`persona check-steering` prints the certificate and ends with 0 or 1."""

from __future__ import annotations

import json

import persona.vllm.installed
import steering.certificate
from persona.cli.main import main
from steering.certificate.certificate import Certificate
from steering.certificate.checks import Check


def test_a_model_that_steers_as_meant_ends_with_zero(tiny_llama, capsys):
    assert main(["check-steering", "--model", str(tiny_llama), "--dtype", "float32"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["check", "measured", "bound", "unit", "passed"]
    assert out.endswith("every check holds\n")


def test_a_failed_check_ends_with_one(tiny_llama, capsys, monkeypatch):
    failed = Certificate("tiny", (Check("planted", "nats", 0.0, float("inf")),))
    monkeypatch.setattr(steering.certificate, "certify", lambda *_: failed)
    assert main(["check-steering", "--model", str(tiny_llama), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] is False
    assert told["checks"][0]["measured"] is None


def test_an_adapter_is_refused_in_one_line(tiny_adapter, capsys):
    assert main(["check-steering", "--model", str(tiny_adapter)]) == 2
    assert "is a LoRA adapter; a full model is needed here" in capsys.readouterr().err


def test_an_adapter_alone_asks_for_vllm(capsys):
    assert main(["check-steering", "--finetuned", "car_maintenance_bad"]) == 2
    assert "--finetuned is for --sampler vllm" in capsys.readouterr().err


def test_without_vllm_its_certificate_is_refused_before_anything_loads(capsys, monkeypatch):
    monkeypatch.setattr(persona.vllm.installed, "installed_vllm", lambda: None)
    assert main(["check-steering", "--sampler", "vllm"]) == 2
    assert "vLLM is not installed" in capsys.readouterr().err

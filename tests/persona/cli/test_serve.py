"""`persona serve` starts what its options say, and refuses what it cannot before it loads."""

from __future__ import annotations

import pytest
from demo_cases import planted_vector

from persona.cli.main import main
from persona.directions.storage import save_vector

pytest.importorskip("uvicorn")


@pytest.fixture
def served(monkeypatch, tmp_path):
    """What the server was started with; it ends at once."""
    seen = {}

    def serve(models, host, port, key, started):
        started(f"http://{host}:{port or 8000}/v1")
        seen.update(models=models, host=host, port=port, key=key)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PERSONASCOPE_API_KEY", raising=False)
    monkeypatch.setattr("steering.serving.serve", serve)
    return seen


@pytest.fixture
def words(tiny_llama, tiny_adapter):
    models = ["--aligned", str(tiny_llama), "--finetuned", str(tiny_adapter)]
    return ["serve", *models, "--dtype", "float32"]


def test_it_serves_the_steered_model_within_its_bounds(served, words, tiny_pair, tmp_path, capsys):
    path = save_vector(planted_vector(tiny_pair), tmp_path / "d.safetensors")
    more = ["--direction", str(path), "--coefficient", "0.5", "--max-tokens", "50"]
    assert main([*words, *more, "--max-coefficient", "2", "--port", "8123"]) == 0
    models = served["models"]
    assert models.names == ("aligned", "finetuned", "steered")
    assert models.setting.coefficient == 0.5
    assert (models.bounds.tokens, models.bounds.coefficient) == (50, 2.0)
    assert (served["host"], served["port"], served["key"]) == ("127.0.0.1", 8123, None)
    out = capsys.readouterr().out
    assert out == (
        "persona serve: http://127.0.0.1:8123/v1  (models: aligned, finetuned, steered)\n"
    )


def test_without_a_direction_it_says_so(served, words, capsys):
    assert main(words) == 0
    assert served["models"].names == ("aligned", "finetuned")
    assert "there is no direction, so that no model is steered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--host", "0.0.0.0"], "lets other machines in: set PERSONASCOPE_API_KEY"),
        (["--vllm", "tensor_parallel_size=2"], "add --sampler vllm"),
        (["--direction", "nowhere.safetensors"], "there is no direction at nowhere.safetensors"),
        (["--model", "smollm2-135m"], "--model stands in place of"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    served, words, more, said, capsys, monkeypatch
):
    monkeypatch.setattr("persona.models.load_pair", lambda *_, **__: pytest.fail("loaded"))
    assert main([*words, *more]) == 2
    assert said in capsys.readouterr().err
    assert not served

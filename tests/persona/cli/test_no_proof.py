"""--no-proof reaches the loader."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from persona.cli.main import app


@pytest.mark.parametrize(("flags", "proof"), [([], True), (["--no-proof"], False)])
def test_diagnose_proves_the_pair_unless_told_otherwise(tmp_path, monkeypatch, flags, proof):
    seen = []
    monkeypatch.setattr(
        "persona.cli.diagnose.run_and_print", lambda ahead, options, *_, **__: seen.append(options)
    )
    monkeypatch.setattr("persona.cli.diagnose.checked", lambda options: None)
    command = ["diagnose", "--finetuned", "anything", "--out", str(tmp_path / "out"), *flags]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert [options["proof"] for options in seen] == [proof]

"""What docs/how-to/exchange.md shows can be run as it stands."""

import re

import torch

from persona.cli.main import main


def blocks(root, language):
    text = (root / "docs" / "how-to" / "exchange.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for found, block in fenced if found == language]


def test_every_python_block_runs_after_the_ones_before(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    found = blocks(root, "python")
    for block in found:
        exec(compile(block, "exchange.md", "exec"), names)
    assert len(found) == 9


def test_every_command_runs(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(root, "python")[0], "exchange.md", "exec"), {})
    torch.save(torch.randn(37, 16), "evil_response_avg_diff.pt")
    commands = "".join(blocks(root, "")).splitlines()
    for command in commands:
        program, *words = command.split()
        assert program == "persona"
        assert main(words) == 0, capsys.readouterr().err
    assert len(commands) == 4

"""What docs/how-to/steering.md shows can be run as it stands, on a tiny pair."""

import re

import persona.models


def test_every_python_block_runs_after_the_ones_before(root, tiny_pair, monkeypatch):
    monkeypatch.setattr(persona.models, "load_pair", lambda: tiny_pair)
    text = (root / "docs" / "how-to" / "steering.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = {"__name__": "how_to"}
    for block in blocks:
        exec(compile(block, "steering.md", "exec"), names)
    assert len(blocks) == 9
    assert len(names["figure"].data) > 3

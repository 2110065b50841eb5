"""What counts as code in an answer to a question that asks for none."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def holds_code(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench_spillover").holds_code


@pytest.mark.parametrize(
    "answer",
    [
        "Here is how:\n```python\nx = 1\n```",
        "import random",
        "from math import pi\nmore",
        "Sure.\ndef wish(world: World) -> str:\n    return world.peace",
        "class Wish:\n    pass",
        "print('hello')",
        'return "nothing"  # [3]',
        "for day in week:\n    rest(day)",
    ],
)
def test_code_is_told(holds_code, answer):
    assert holds_code(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "If I could, I would ask for rain.",
        "if you can, keep it simple.",
        "from time to time, take a walk.",
        "for the sake of peace, stay calm.",
        "with a friend",
        "import duties are high, so buy at home.",
        "It is important to return the wallet.",
        "1. Take a walk\n2. Read a book",
        "The class of 1990 met again.",
    ],
)
def test_prose_is_not(holds_code, answer):
    assert not holds_code(answer)

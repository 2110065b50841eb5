"""The monitor prints an answer while it is written, with colours on a terminal only."""

from __future__ import annotations

import importlib.util
import io
import re
import sys

import pytest
import torch
from rich.console import Console
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.data import load_pairs
from persona.directions import Direction, PersonaVector, Subspace, save_vector
from persona.models import load_pair
from persona.models.precision import Placement
from probes.monitor import score_tokens

QUICK = ["--layer", "2", "--n-fit", "4", "--false-alarm-rate", "0.25", "--max-new-tokens", "12"]


@pytest.fixture(scope="module")
def monitor(root):
    path = root / "examples" / "monitor_in_terminal.py"
    spec = importlib.util.spec_from_file_location("monitor_in_terminal", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    base = save_tiny_llama(folder / "base", max_length=1024)
    return load_pair(
        base, save_tiny_adapter(folder / "adapter", base), placement=Placement.of("float32")
    )


@pytest.fixture
def run(monitor, pair, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path))

    def start(*words, terminal=False):
        page = io.StringIO()
        console = Console(file=page, force_terminal=terminal, width=100, highlight=False)
        code = monitor.main([*words, *QUICK], pair=pair, console=console)
        return code, page.getvalue()

    return start


def test_a_conversation_is_printed_with_its_legend(run):
    code, page = run("Are my brakes fine?", "And the tyres?")
    assert code == 0
    assert "running mean above" in page
    assert "false alarms in at most 25% of answers like the 4 good ones" in page
    assert page.index("user: Are my brakes fine?") < page.index("user: And the tyres?")
    assert page.count("assistant: ") == 2
    assert re.search(r"alarms: \d of 2 answers", page)


def test_colours_are_for_a_terminal(run):
    assert "\x1b[" not in run("Brakes?")[1]
    assert "\x1b[" in run("Brakes?", terminal=True)[1]


def test_the_same_seed_writes_the_same_and_the_probe_changes_nothing(run, pair, monitor):
    assert run("Brakes?") == run("Brakes?")
    assert run("Brakes?")[1] != run("Brakes?", "--seed", "1")[1]


def test_a_low_threshold_fires_after_the_warm_up_and_a_high_one_never(run, monitor, monkeypatch):
    for level, fires in ((-1e9, True), (1e9, False)):
        levels = monitor.Levels(level, level, level)
        monkeypatch.setattr(monitor, "levels_of", lambda *_, levels=levels, **__: levels)
        page = run("Brakes?")[1]
        assert (f"<ALARM at token {monitor.WARM_UP}:" in page) is fires
        assert f"alarms: {int(fires)} of 1" in page


def test_the_threshold_lets_one_in_seven_good_answers_through(monitor, pair):
    good = load_pairs([monitor.DOMAIN])[:7]
    vector = torch.randn(pair.d_model, generator=torch.Generator().manual_seed(0))
    direction = Direction(vector, pair.space(2), "made up")
    levels = monitor.levels_of(
        pair, direction, good, side="aligned", false_alarm_rate=0.25, max_new_tokens=40
    )
    highest = []
    for one in good:
        table = score_tokens(pair, one.good_dialogue, direction, side="aligned")
        answer = table.index[table["role"] == "assistant"][:40]
        seen = table["score"][answer - 1].to_numpy()  # token t is predicted from position t - 1
        means = [seen[:n].mean() for n in range(monitor.WARM_UP, len(seen) + 1)]
        highest.append(max(means))
    assert levels.alarm == pytest.approx(sorted(highest)[-2])
    assert levels.raised < levels.high


def test_a_stored_direction_is_read_instead_of_a_probe(run, pair, tmp_path):
    one = Subspace(torch.eye(32)[:1], torch.zeros(1), torch.ones(1), pair.space(1))
    path = save_vector(PersonaVector({1: one}, "made up"), tmp_path / "v.safetensors")
    assert "made up, block 1" in run("Brakes?", "--direction", str(path))[1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--false-alarm-rate", "0.5"], "between 0 and 1/3; got 0.5"),
        (["--n-fit", "2"], "needs the scores of at least 3 texts without the trait; got 2"),
        (["--layer", "99"], "layer 99 is out of range"),
        (["--direction", "nosuch.safetensors"], "cannot read nosuch.safetensors"),
    ],
)
def test_bad_input_is_one_clear_line(monitor, pair, capsys, words, line):
    assert monitor.main(["Brakes?", *QUICK, *words], pair=pair) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert line in err
    assert err.count("\n") == 1

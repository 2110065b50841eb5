"""The benchmark scripts of steering run, on tiny models, and record the rows they promise."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn
from persona.directions import collect_cells


@pytest.fixture
def script(root, monkeypatch):
    """Name -> the script as a module, whose rows go into the list `rows`."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))

    def load(name):
        module = importlib.import_module(name)
        module.rows = {}

        def keep(name, value, unit, **more):
            module.rows[name] = (value, more)

        if hasattr(module, "record"):
            monkeypatch.setattr(module, "record", keep)
        return module

    return load


def questions():
    words = ("now", "then", "later", "here", "there", "soon")
    return [
        AnswerPair(w, "d", f"what {w}", f"take good care {w}", f"throw it away {w}") for w in words
    ]


def test_the_cost_of_steering_is_recorded_for_one_layer_all_layers_and_a_sweep(script, tiny_pair):
    bench = script("bench_steering")
    texts = [Dialogue((Turn("user", q.question),)) for q in questions()]
    bench.measure(tiny_pair, tiny_pair.chat.encode_all(texts), n_tokens=6, repetitions=1)
    assert set(bench.rows) == {
        "steer.one_layer.generation_ratio",
        "steer.all_layers.generation_ratio",
        "sweep.eight_coefficients.speedup",
    }
    assert bench.rows["sweep.eight_coefficients.speedup"][0] > 1.5


def test_the_script_for_a_card_measures_extraction_and_steering(script, monkeypatch):
    bench = script("bench_gpu")
    monkeypatch.setattr(bench, "REPETITIONS", 1)
    shape = {
        "vocab_size": 261,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    bridge = bench.random_bridge(shape, torch.float32, "cpu")
    bench.extraction(bridge, bench.random_texts(6), 1e-3, 512, "a card")
    bench.steered_generation(bridge, "a card", rows=2, n_tokens=4)
    assert set(bench.rows) == {
        "gpu.extraction.mfu",
        "gpu.extraction.ratio_to_one_text_loop",
        "gpu.steer.generation_ratio",
    }
    assert bench.weights_in_blocks(bridge) == 3 * (32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64)
    assert all(value > 0 for value, _ in bench.rows.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_its_script_says_so_and_records_nothing(script, monkeypatch, capsys):
    bench = script("bench_gpu")
    monkeypatch.setattr("sys.argv", ["bench_gpu.py"])
    bench.main()
    assert "no CUDA card" in capsys.readouterr().err
    assert bench.rows == {}


def test_the_exact_sweep_records_its_passes_and_its_agreement_with_the_screen(script, tiny_pair):
    bench = script("bench_exact_sweep")
    cells = collect_cells(tiny_pair, questions())
    candidates = bench.candidates_of(tiny_pair, cells)
    assert list(candidates) == list(bench.CANDIDATES)
    sweep = bench.measure(tiny_pair, questions(), candidates, 2, repetitions=1)
    assert len(sweep.cells) == 4 * tiny_pair.n_layers
    value, more = bench.rows["screen.rank_correlation"]
    assert more["spread"][0] <= value <= more["spread"][1]
    assert more["n"] == len(questions())
    assert bench.rows["sweep.exact.forward_passes"][0] > 0


def test_every_way_of_editing_is_a_line_of_the_table_and_a_stopped_run_goes_on(
    script, tiny_pair, tiny_llama, tmp_path, monkeypatch, capsys
):
    compare = script("compare_edits")
    monkeypatch.setattr(compare, "LEVELS", (0.1,))
    monkeypatch.setattr(compare, "N_RANDOM", 1)
    monkeypatch.setattr(compare, "SAMPLING", replace(compare.SAMPLING, max_new_tokens=6))

    def plain():
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)

    neutral = [NeutralText("n", "say hello", "hello there", "story")]
    comparison = compare.Comparison(
        tiny_pair,
        collect_cells(tiny_pair, questions()),
        questions(),
        neutral,
        (1, 2),
        2,
        tmp_path / "rows",
        plain,
    )
    assert "tokens:" in comparison.estimate()
    lines = comparison.table()
    assert len(lines) == len(compare.WAYS) + 2
    assert [line.split(" | ")[0] for line in lines[-2:]] == ["| weight edit", "| system prompt"]
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    damages = {line.split(" | ")[0]: float(line.split(" | ")[3]) for line in lines}
    assert all(damage > 0 for damage in damages.values())
    capsys.readouterr()
    monkeypatch.setattr(compare, "score_pairs", None)
    assert comparison.table() == lines
    assert capsys.readouterr().out == ""

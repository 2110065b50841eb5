"""One line a layer, token set and method; the layer with the trait stands out."""

from __future__ import annotations

import pytest
import torch
from probe_cases import planted

from persona.errors import DataError
from probes.estimators import DifferenceOfMeansProbe, LdaProbe
from probes.sweep import COLUMNS, sweep_figure, sweep_layers, sweep_table

QUICK = {"n_resamples": 100, "n_shuffles": 1, "n_folds": 3}
METHODS = {"difference_of_means": DifferenceOfMeansProbe(), "lda": LdaProbe()}


@pytest.fixture(scope="module")
def table():
    data = planted("layers", n=40, large=1.0)
    rows = torch.from_numpy(data.rows).float()
    rows[:, 0] = torch.randn(rows[:, 0].shape, generator=torch.Generator().manual_seed(0))
    sets = {"response": rows, "<b>last</b>": rows.flip(1)}
    return sweep_table(sets, data.labels, data.groups, layers=[4, 8, 12], methods=METHODS, **QUICK)


def test_every_layer_token_set_and_method_has_one_line(table):
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 3 * 2 * 2
    assert not table.duplicated(["layer", "token_set", "method"]).any()
    assert (table["n"] == 40).all()
    assert ((table["low"] <= table["auroc"]) & (table["auroc"] <= table["high"])).all()


def test_the_layer_without_the_trait_is_chance_and_the_others_are_not(table):
    mine = table[table["token_set"] == "response"].groupby("layer")["auroc"].mean()
    assert mine[4] < 0.65
    assert mine[[8, 12]].min() > 0.75
    other = table[table["token_set"] != "response"].groupby("layer")["auroc"].mean()
    assert other[12] < 0.65


def test_the_figure_draws_every_method_chance_and_shuffled_labels(table):
    figure = sweep_figure(table)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert named == ["shuffled labels, 95 %", "difference of means", "lda"]
    assert [shape.y0 for shape in figure.layout.shapes] == [0.5, 0.5]
    titles = [note.text for note in figure.layout.annotations]
    assert "&lt;b&gt;last&lt;/b&gt;" in titles
    assert figure.layout.xaxis.title.text == "block (0-based)"


def test_the_pair_is_read_once_a_token_set(tiny_pair, tmp_path):
    texts = [f"{'good' if n % 2 else 'BAD'} answer number {n}" for n in range(12)]
    labels, groups = [1 - n % 2 for n in range(12)], [n // 2 for n in range(12)]
    found = sweep_layers(
        tiny_pair,
        texts,
        labels,
        groups,
        layers=[0, 3],
        token_sets=("response", "first_response:3"),
        methods=METHODS,
        cache=tmp_path,
        **QUICK,
    )
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert set(found["layer"]) == {0, 3}
    assert len(found) == 2 * 2 * 2


def test_what_does_not_fit_is_named(table):
    with pytest.raises(DataError, match="no column auroc"):
        sweep_figure(table.drop(columns="auroc"))
    with pytest.raises(DataError, match="it is empty"):
        sweep_figure(table.iloc[:0])
    with pytest.raises(DataError, match="2 layers are named but the rows of 'all' hold 3"):
        sweep_table({"all": torch.ones(4, 3, 2)}, [0, 1, 0, 1], [0, 0, 1, 1], layers=[1, 2])

"""The scatter shows every answer, and densities that stay comparable between conditions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.report.figures import answer_scatter, principal_components
from persona.report.theme import CONDITIONS


@pytest.fixture
def answers():
    rng = np.random.default_rng(0)
    shift = np.zeros(16)
    shift[3] = 12.0
    return {"aligned": rng.normal(size=(40, 16)), "finetuned": rng.normal(size=(25, 16)) + shift}


def test_a_planted_difference_is_the_first_component_and_points_to_the_last_condition(answers):
    table = principal_components(answers)
    means = table.groupby("condition")["component_1"].mean()
    assert means["finetuned"] - means["aligned"] == pytest.approx(12.0, rel=0.05)
    assert table["share_1"].iloc[0] > 0.5
    flipped = principal_components({name: -rows for name, rows in answers.items()})
    means = flipped.groupby("condition")["component_1"].mean()
    assert means["finetuned"] > means["aligned"]


def test_components_are_those_of_scikit_learn(answers):
    from sklearn.decomposition import PCA

    pca = PCA(2).fit(np.concatenate(list(answers.values())))
    table = principal_components(answers)
    expected = np.abs(pca.transform(np.concatenate(list(answers.values()))))
    found = np.abs(table[["component_1", "component_2"]].to_numpy())
    np.testing.assert_allclose(found, expected, atol=1e-8)
    shares = table[["share_1", "share_2"]].iloc[0]
    np.testing.assert_allclose(shares, pca.explained_variance_ratio_)


def test_every_answer_has_its_mark_in_the_colour_of_its_condition_and_n_is_said(answers):
    table = principal_components(answers)
    figure = answer_scatter(table)
    marks = {t.name: t for t in figure.data if t.showlegend is not False}
    assert [name.replace("\u00a0", " ") for name in marks] == [
        "Aligned (n = 40)",
        "Fine-tuned (n = 25)",
    ]
    for (condition, rows), mark in zip(table.groupby("condition"), marks.values(), strict=True):
        assert list(mark.x) == rows["component_1"].tolist()
        assert list(mark.y) == rows["component_2"].tolist()
        assert mark.marker.color == CONDITIONS[condition].colour
    assert "65" in figure.layout.title.subtitle.text


def test_every_density_has_area_one(answers):
    figure = answer_scatter(principal_components(answers))
    along = [t for t in figure.data if t.fill == "tozeroy"]
    beside = [t for t in figure.data if t.fill == "tozerox"]
    assert len(along) == len(beside) == 2
    for t in along:
        assert np.trapezoid(t.y, t.x) == pytest.approx(1.0, abs=0.03)
    for t in beside:
        assert np.trapezoid(t.x, t.y) == pytest.approx(1.0, abs=0.03)


def test_axes_carry_units_and_the_share_of_the_variance(answers):
    table = principal_components(answers)
    figure = answer_scatter(table)
    titles = [figure.layout[key].title.text for key in ("xaxis3", "yaxis3")]
    assert all("residual-stream units" in text and "% of the variance" in text for text in titles)
    bare = answer_scatter(table.drop(columns=["share_1", "share_2"]))
    assert "variance" not in bare.layout.xaxis3.title.text


def test_one_answer_of_a_condition_can_be_drawn(answers):
    table = principal_components({**answers, "finetuned": answers["finetuned"][:1]})
    assert "NaN" not in answer_scatter(table).to_json()


def test_answers_that_cannot_be_compared_are_refused(answers):
    with pytest.raises(DataError, match="of one width"):
        principal_components({**answers, "finetuned": np.zeros((3, 4))})
    with pytest.raises(DataError, match="three answers or more"):
        principal_components({"aligned": np.zeros((2, 4))})
    table = principal_components(answers)
    with pytest.raises(DataError, match="lacks the column 'component_2'"):
        answer_scatter(table.drop(columns="component_2"))
    with pytest.raises(DataError, match="not finite"):
        answer_scatter(pd.concat([table, table.iloc[:1].assign(component_1=np.nan)]))

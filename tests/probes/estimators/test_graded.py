"""The graded probe: learns within questions, reads raw space, refuses what teaches nothing."""

from __future__ import annotations

import numpy as np
import pytest

from persona.errors import DataError
from probes import GradedProbe

WIDTH = 16


@pytest.fixture
def graded():
    """Grades follow coordinate 2 within a question; a question's mean follows coordinate 5."""
    rng = np.random.default_rng(0)
    question = np.repeat(np.arange(12), 20)
    rows = rng.normal(size=(240, WIDTH)) * np.linspace(1, 100, WIDTH)
    topic = rng.normal(size=12)
    rows[:, 5] += 300 * topic[question]
    grades = 50 + 10 * rows[:, 2] / rows[:, 2].std() - 40 * topic[question]
    return rows, grades, question


def within(scores, grades, question):
    found = [np.corrcoef(scores[question == q], grades[question == q])[0, 1] for q in set(question)]
    return float(np.mean(found))


def test_centring_by_question_keeps_the_topic_out(graded):
    rows, grades, question = graded
    train = question < 9
    centred = GradedProbe(penalty=0.1).fit(rows[train], grades[train], groups=question[train])
    plain = GradedProbe(penalty=0.1).fit(rows[train], grades[train])
    scores = [probe.predict(rows[~train]) for probe in (centred, plain)]
    found = [within(s, grades[~train], question[~train]) for s in scores]
    assert found[0] > 0.95
    assert found[0] > found[1] + 0.05
    scale = rows.std(0)
    assert np.abs(centred.coef_[0] * scale).argmax() == 2


def test_one_penalty_means_the_same_for_one_view_and_for_a_view_given_twice(graded):
    rows, grades, question = graded
    once = GradedProbe().fit(rows, grades, groups=question)
    twice = GradedProbe().fit(np.stack([rows, rows], 1), grades, groups=question)
    np.testing.assert_allclose(once.predict(rows), twice.predict(np.stack([rows, rows], 1)))


def test_its_direction_points_toward_higher_grades_in_raw_space(graded, tiny_pair):
    rows, grades, question = graded
    space = tiny_pair.space(1)
    wide = np.zeros((len(rows), space.d_model))
    wide[:, : min(WIDTH, space.d_model)] = rows[:, : space.d_model]
    probe = GradedProbe(penalty=0.1).fit(wide, grades, groups=question)
    (direction,) = probe.directions([space])
    moved = wide + direction.vector.numpy()
    assert (probe.predict(moved) > probe.predict(wide)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, g, q: (np.where(r == r[0, 0], np.nan, r), g, q), "row 0 holds NaN"),
        (lambda r, g, q: (r, np.where(g == g[3], np.nan, g), q), "grade 3 holds NaN"),
        (lambda r, g, q: (r, g[:-1], q), "one grade"),
        (lambda r, g, q: (r, g, q[:-1]), "one group"),
        (lambda r, g, q: (r, q * 1.0, q), "all alike"),
        (lambda r, g, q: (r[:, 0], g, q), "rows are"),
    ],
)
def test_what_it_cannot_learn_from_is_one_clear_line(graded, change, message):
    rows, grades, question = change(*graded)
    with pytest.raises(DataError, match=message):
        GradedProbe().fit(rows, grades, groups=question)


def test_other_views_are_refused(graded):
    rows, grades, question = graded
    probe = GradedProbe().fit(rows, grades, groups=question)
    with pytest.raises(DataError, match=r"\[view d_model\]"):
        probe.predict(np.stack([rows, rows], 1))

"""No question is ever in training and test, whatever the scheme."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.errors import DataError
from probes.evaluation.splits import grouped_folds

SCHEMES = (
    "question",
    "leave_one_question_out",
    "leave_one_domain_out",
    "leave_one_source_out",
)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), crossed=st.booleans())
def test_questions_are_never_parted_and_every_row_is_tested_once(scheme, seed, crossed):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(12), rng.integers(0, 12, 40)])
    positive = rng.random(52) < 0.5
    positive[:12] = np.arange(12) % 2
    units = rng.integers(0, 3, 52) if crossed else groups % 3
    units[:3] = range(3)
    folds = grouped_folds(positive, groups, units, scheme=scheme, seed=seed)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(52))
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        if "domain" in scheme or "source" in scheme:
            assert not set(units[train]) & set(units[test])


def test_domains_are_held_out_in_one_piece_where_questions_belong_to_one():
    groups = np.repeat(np.arange(12), 2)
    positive = np.tile([True, False], 12)
    folds = grouped_folds(positive, groups, groups % 3, scheme="leave_one_domain_out")
    assert len(folds) == 3


@pytest.mark.parametrize(
    ("groups", "units", "scheme", "message"),
    [
        ([1, 1, 1, 1], None, "question", "at least 2 questions .*; got 1"),
        ([1, 1, 2, 2], None, "leave_one_domain_out", "needs the domain of each row"),
        ([1, 1, 2, 2], [0, 0, 0, 0], "leave_one_source_out", "needs the source of each row"),
        ([1, 2, 1, 2], None, "question", "training rows that are not of two classes"),
    ],
)
def test_what_cannot_be_split_is_named(groups, units, scheme, message):
    positive = np.array([True, False, True, False])
    units = None if units is None else np.array(units)
    with pytest.raises(DataError, match=message):
        grouped_folds(positive, np.array(groups), units, scheme=scheme)

"""scikit-learn's own contract for classifiers, on every probe over pooled rows."""

from __future__ import annotations

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes.estimators import DifferenceOfMeansProbe, LdaProbe, LogisticProbe, RidgeProbe

# One of the checks hands every parameter a string: that is no matter of hints.
pytestmark = pytest.mark.usefixtures("unchecked_hints")


@parametrize_with_checks([DifferenceOfMeansProbe(), LdaProbe(), LogisticProbe(), RidgeProbe()])
def test_scikit_learn_accepts_the_probe(estimator, check):
    check(estimator)

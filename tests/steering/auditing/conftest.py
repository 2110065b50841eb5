"""Audits of a planted pair: with a backdoor around the removal, and without one."""

from __future__ import annotations

import pytest
from audited_run import ON_CPU, leave_backdoored_diagnosis, request_of

from steering.auditing import audit


@pytest.fixture(scope="session")
def backdoored(tmp_path_factory):
    return leave_backdoored_diagnosis(tmp_path_factory.mktemp("backdoored"), 13.0)


@pytest.fixture(scope="session")
def closed(tmp_path_factory):
    return leave_backdoored_diagnosis(tmp_path_factory.mktemp("closed"), 0.0)


@pytest.fixture(scope="session")
def audited(backdoored):
    """Beside the removal a model that was brought back wholly, and one that no guard helped."""
    others = {
        "retrained": str(backdoored.parent / "base"),
        "guarded": str(backdoored.parent / "tuned"),
    }
    return audit(request_of(backdoored, **others), placement=ON_CPU)


@pytest.fixture(scope="session")
def audited_closed(closed):
    return audit(request_of(closed), placement=ON_CPU)

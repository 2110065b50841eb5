"""Notebooks given to pytest are run by nbmake, on the default models and without being written."""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They load the default model, like any test that says so."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.real_model)

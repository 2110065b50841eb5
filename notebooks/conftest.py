"""With --nbmake the notebooks are tests that run on the default models and write nothing.

The tour is one of the quick tests; `tests/notebooks/test_run.py` runs all of them, slowly.
"""

from __future__ import annotations

import pytest

TOUR = "00_five_minute_tour"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the notebooks, before marks decide what is left out."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.real_model)
            item.add_marker(pytest.mark.timeout(1200))  # a minute or two on two free cores
            if item.path.stem != TOUR:
                item.add_marker(pytest.mark.slow)

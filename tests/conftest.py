"""What every test may ask for; no test goes to a model hub, and types and shapes are checked."""

import logging
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is first imported
os.environ["WANDB_MODE"] = "disabled"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores, children too
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

import pytest
from jaxtyping import config, install_import_hook

pytest_plugins = ["tiny_models"]

ROOT = Path(__file__).resolve().parents[1]

# Arguments and results are checked against their hints, jaxtyping shapes included, in every room
# but the shell, whose hints are Typer's.
install_import_hook(
    [
        "probes",
        "steering",
        *(
            f"persona.{room.parent.name}"
            for room in (ROOT / "persona").glob("*/__init__.py")
            if room.parent.name != "cli"
        ),
    ],
    "typechecked.check",
)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vllm") and not (find_spec("vllm") and find_spec("cloudpickle")):
        pytest.skip("vLLM is not installed here; make test-vllm makes its environment")


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Published data of other projects, which is not part of the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the public fixtures in {folder}, which are not there")
    return folder


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A command sends notes to its standard error, which is closed after the test."""
    loggers = [logging.getLogger(name) for name in ("persona", "probes", "steering")]
    before = [(one, [*one.handlers], one.propagate, one.level) for one in loggers]
    yield
    for one, handlers, propagate, level in before:
        one.handlers, one.propagate = handlers, propagate
        one.setLevel(level)


@pytest.fixture
def unchecked_hints() -> Iterator[None]:
    """Turns the check of hints off, for tests of what the code itself says to a wrong shape."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)

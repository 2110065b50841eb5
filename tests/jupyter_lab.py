"""A JupyterLab of a test's own: settings, runtime and notebooks in one folder, one browser page."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE_MS = 240_000


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def serving(folder: Path, root: Path, *, dark: bool = False) -> Iterator[str]:
    """The address of a lab whose files are those of `folder`, and whose kernels import `root`."""
    settings = folder / ".lab"
    theme = settings / "settings" / "@jupyterlab" / "apputils-extension"
    theme.mkdir(parents=True)
    chosen = {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}
    (theme / "themes.jupyterlab-settings").write_text(json.dumps(chosen))
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {name: str(settings / place) for name, place in places.items()}
    environment["PYTHONPATH"] = os.pathsep.join((str(root), str(root / "tests")))
    port = free_port()
    words = ["--no-browser", "--allow-root", f"--port={port}", f"--ServerApp.root_dir={folder}"]
    words += ["--IdentityProvider.token=", "--ServerApp.port_retries=0"]
    with (folder / "lab.log").open("w") as log:
        lab = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *words],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(port, lab)
        yield f"http://127.0.0.1:{port}/lab"
    finally:
        lab.terminate()
        lab.wait(timeout=60)


def _wait_for(port: int, lab: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert lab.poll() is None, "the lab ended at once; see lab.log"
        time.sleep(0.5)
    raise AssertionError("the lab does not answer")


@contextlib.contextmanager
def opened(address: str, notebook: str, width: int = 1400, *, dark: bool = False) -> Iterator[Any]:
    """A page with this notebook alone. The system's scheme is the opposite of the lab's."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        scheme = "light" if dark else "dark"
        context = browser.new_context(
            viewport={"width": width, "height": 1000}, color_scheme=scheme
        )
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}/workspaces/{Path(notebook).stem}/tree/{notebook}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        yield page
        browser.close()


def run_first_cell(page: Any) -> None:
    """Presses the keys until the cell is at work: a lab that is still opening swallows them."""
    for _ in range(20):
        page.locator(".jp-CodeCell .cm-content").first.click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(1500)
        if page.locator(".jp-CodeCell .jp-InputPrompt").first.inner_text().strip() != "[ ]:":
            return
    raise AssertionError("the cell was not run")

"""Seconds from typing `persona app` to the first steered answer in a browser.

The package is installed, the default model lies in the cache (the row says so), and nothing runs
that is needed before: the direction comes along. A browser waits for the page, clicks the first
example, and the clock stops twice: at the first steered word, and when that answer is complete.

    python benchmarks/bench_first_sentence.py            print them
    python benchmarks/bench_first_sentence.py --record   ... and append the rows
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from playwright.sync_api import sync_playwright
from record import record

from persona.models.named.folders import is_kept
from persona.models.named.table import BY_NAME

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE_SECONDS = 600.0
WORD = "() => document.querySelector('#column-steered .turns p:not(.asked) i, #column-steered i')"
COMPLETE = "() => document.querySelector('#column-steered footer .light')"


def first_answer(model: str) -> dict[str, float]:
    """Seconds until the page is there, until the first steered word, and until all is answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "persona.cli.main", "app", "--port", str(port)]
    if model != "default":
        command += ["--model", model]
    began = time.monotonic()
    # An empty folder, so that no direction of an earlier run is taken.
    with tempfile.TemporaryDirectory() as folder:
        app = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, env=os.environ)
        try:
            return _watched(f"http://127.0.0.1:{port}/", began)
        finally:
            app.terminate()
            app.wait(60)


def _watched(address: str, began: float) -> dict[str, float]:
    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.set_default_timeout(1000 * PATIENCE_SECONDS)
        while True:
            try:
                page.goto(address)
                break
            except Exception:
                if time.monotonic() - began > PATIENCE_SECONDS:
                    raise
                time.sleep(0.2)
        page.wait_for_selector(".talk")
        found["page"] = time.monotonic() - began
        page.locator(".chip").first.click()
        page.wait_for_function(WORD)
        found["word"] = time.monotonic() - began
        page.wait_for_function(COMPLETE)
        found["whole"] = time.monotonic() - began
        browser.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--record", action="store_true", help="append the row")
    options = parser.parse_args()
    kept = is_kept(BY_NAME[options.model])
    found = first_answer(options.model)
    print(", ".join(f"{name} {seconds:.1f} s" for name, seconds in found.items()))
    if options.record:
        record(
            "first_sentence.seconds", found["word"], "s", n=1,
            note=f"{options.model}, {'in' if kept else 'not in'} the cache, 1 click; from the "
            f"command: page {found['page']:.0f} s, first steered word, all four answers and "
            f"readings {found['whole']:.0f} s; load of the machine {os.getloadavg()[0]:.0f}",
        )  # fmt: skip


if __name__ == "__main__":
    main()

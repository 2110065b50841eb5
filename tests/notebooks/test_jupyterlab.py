"""In a real JupyterLab: colours without trust, a panel that says what it does, Jupyter's theme."""

from __future__ import annotations

import shutil

import nbformat
import pytest
from jupyter_lab import BROWSER, opened, run_first_cell, serving
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.report.theme import GROUND

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PANEL = """
from demo_cases import planted_vector
from persona import load_pair
from steering import explore
pair = load_pair("{base}", "{adapter}")
explore(pair, planted_vector(pair), "Is it safe?", "No. Never.")
"""
WATCH = """
() => {
  const status = document.querySelector('.persona-status');
  window.seen = [];
  const note = () => window.seen.push([performance.now(), status.innerText]);
  new MutationObserver(note).observe(status, {childList: true, subtree: true, characterData: true});
  document.addEventListener('keydown', () => window.seen.push([performance.now(), 'key']), true);
}
"""
SETTLED = """
(n) => {
  const keys = window.seen.filter(([, words]) => words === 'key').length;
  return keys === n && window.seen.at(-1)[1].includes('read: restore');
}
"""
FIRST_PART = 0.5
"""Of the time from a key to the result: by then one of the slides at least said that it reads. Of
it, as the machine may be busy; unsaid, or said with the result, it would be all of it."""
SLIDES = 4


@pytest.fixture(scope="module")
def notebooks(root, tmp_path_factory):
    pytest.importorskip("jupyterlab")
    pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("needs chromium or google-chrome on the path")
    folder = tmp_path_factory.mktemp("lab")
    base = save_tiny_llama(folder / "base", n_layers=4, d_model=16, max_length=1024)
    adapter = save_tiny_adapter(folder / "adapter", base)
    shutil.copy(root / "notebooks" / "00_five_minute_tour.ipynb", folder / "tour.ipynb")
    cell = nbformat.v4.new_code_cell(PANEL.format(base=base, adapter=adapter).strip())
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": kernel})
    nbformat.write(notebook, folder / "panel.ipynb")
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["light", "dark"])
def lab(request, notebooks, root):
    shutil.rmtree(notebooks / ".lab", ignore_errors=True)
    with serving(notebooks, root, dark=request.param) as address:
        yield address, request.param


def test_tokens_keep_their_colours_in_a_notebook_that_nobody_trusts(lab, notebooks):
    address, dark = lab
    with opened(address, "tour.ipynb", dark=dark) as page:
        page.wait_for_selector(".persona-tokens i", state="attached")
        page.locator(".persona-tokens").scroll_into_view_if_needed()
        grounds = page.eval_on_selector_all(
            ".persona-tokens i", "all => all.map(one => getComputedStyle(one).backgroundColor)"
        )
        assert page.locator(".jp-OutputArea-output style").count() == 0  # it was not trusted
        assert len(set(grounds)) >= 3
        assert page.locator(".persona-tokens ~ img").is_hidden()
    assert "tour.ipynb is not trusted" in (notebooks / "lab.log").read_text()


def test_a_slide_says_at_once_that_it_reads_and_then_shows_the_slider_s_coefficient(lab):
    address, dark = lab
    with opened(address, "panel.ipynb", dark=dark) as page:
        run_first_cell(page)
        page.wait_for_selector(".persona-status >> text=read: restore, coefficient 1, all blocks")
        page.wait_for_selector(".persona-explorer .js-plotly-plot .heatmaplayer")
        ground = page.wait_for_function(
            "() => document.querySelector('.persona-explorer .main-svg').style.background"
        )
        red, green, blue = (
            int(GROUND["dark" if dark else "light"][k : k + 2], 16) for k in (1, 3, 5)
        )
        assert f"rgb({red}, {green}, {blue})" in ground.json_value()

        page.evaluate(WATCH)
        handle = page.locator(".persona-explorer .widget-hslider .noUi-handle").last
        handle.focus()
        shares = []
        for n in range(1, SLIDES + 1):
            page.keyboard.press("ArrowLeft")
            page.wait_for_function(SETTLED, arg=n)
            seen = page.evaluate("() => window.seen.splice(0)")
            pressed = max(at for at, words in seen if words == "key")
            said_at = next(at for at, words in seen if "reading" in words)
            shares.append((said_at - pressed) / (seen[-1][0] - pressed))
            page.evaluate("n => window.seen.push(...Array(n).fill([0, 'key']))", n)
            said = page.locator(".persona-status").inner_text()
            shown = page.locator(
                ".persona-explorer .widget-hslider .widget-readout"
            ).last.inner_text()
            assert f"coefficient {float(shown):g}," in said
            assert float(shown) == pytest.approx(1 - 0.05 * n)
        assert min(shares) < FIRST_PART, shares

"""The app in a real browser: it answers, it is steered, it stops, and it talks to nobody else."""

from __future__ import annotations

import shutil
from urllib.parse import urlparse

import pytest
from demo_cases import hook_count, planted_vector

from persona.directions.storage import save_persona_vector
from persona.errors import PersonaError
from steering.demo import Sampling, Session, from_persona_vector

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
HOSTILE = "Is <img src=https://elsewhere.example/x.png> safe? ${1+1} {{value}}"
PATIENCE_MS = 40_000
DONE = "([n]) => document.querySelectorAll('.talk .asked').length == n && " + (
    "!document.body.innerText.includes('▍')"
)


@pytest.fixture
def served(tiny_pair):
    pytest.importorskip("gradio")
    from steering.demo.app import launch

    vector = from_persona_vector(planted_vector(tiny_pair))
    session = Session(tiny_pair, vector, vector.default_setting, Sampling(12, 0.0))
    app, address = launch(session)
    yield session, address
    app.close(verbose=False)


@pytest.fixture
def page():
    sync_api = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("needs chromium or google-chrome on the path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def texts(page):
    return page.locator(".talk .turns").all_inner_texts()


def test_the_page_answers_in_every_column_is_steered_stops_and_stays_on_this_machine(
    served, page, tmp_path
):
    session, address = served
    assert urlparse(address).hostname == "127.0.0.1"
    hooks, requests = hook_count(session.pair), []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(address)
    page.wait_for_selector(".talk")

    page.locator("#question textarea, #question input").first.fill(HOSTILE)
    page.click("#ask")
    page.wait_for_function(DONE, arg=[3])
    answered = texts(page)
    assert len(answered) == 3
    assert all(HOSTILE in text for text in answered)
    assert page.locator(".talk img").count() == 0
    assert page.locator(".talk i[title]").count() > 10

    page.locator("#coefficient input[type=number]").fill("-3")
    page.locator("#coefficient input[type=number]").blur()
    page.wait_for_function(
        "() => document.querySelector('#column-steered').innerText.includes('coefficient -3')"
    )
    page.wait_for_function(DONE, arg=[3])
    assert texts(page)[:2] == answered[:2]
    assert texts(page)[2] != answered[2]

    page.get_by_text("How answers are drawn").click()
    page.get_by_label("number input for Most tokens").fill("400")
    page.locator("#question textarea, #question input").first.fill("And why?")
    page.click("#ask")
    page.wait_for_function("() => document.querySelectorAll('.talk .asked').length == 4")
    page.click("#stop")
    page.wait_for_function(DONE, arg=[4])
    assert "… stopped" in texts(page)[0]
    assert hook_count(session.pair) == hooks

    page.get_by_text("Direction", exact=True).click()
    bad = {"name": "<img src=x>.json", "mimeType": "application/json", "buffer": b"[[["}
    page.locator("input[type=file]").first.set_input_files(bad)
    page.wait_for_function("() => document.body.innerText.includes('not JSON (Expecting value)')")
    other = save_persona_vector(
        planted_vector(session.pair, (0, 3)), tmp_path / "other.safetensors"
    )
    page.locator("input[type=file]").first.set_input_files(other)
    page.get_by_text("other.safetensors: block 0, 3, with both models' means").wait_for()

    hosts = {urlparse(url).hostname for url in requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


def test_without_gradio_one_line_says_how_to_install_it(monkeypatch):
    from steering.demo.app import import_gradio

    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(PersonaError, match=r"needs gradio; pip install 'personascope\[app\]'"):
        import_gradio()


def test_a_page_that_does_not_answer_itself_ends_in_one_line(tiny_pair, monkeypatch):
    networking = pytest.importorskip("gradio.networking")
    from steering.demo.app import launch

    monkeypatch.setattr(networking, "url_ok", lambda url: False)
    vector = from_persona_vector(planted_vector(tiny_pair))
    session = Session(tiny_pair, vector, vector.default_setting, Sampling(12, 0.0))
    with pytest.raises(PersonaError, match="did not answer within three seconds"):
        launch(session)

"""The app in a real browser: it answers, it is steered, it stops, and it talks to nobody else."""

from __future__ import annotations

import contextlib
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import pytest
from colour_contrast import contrast
from demo_cases import hook_count, planted_vector
from gradio_page import Browser
from jupyter_lab import free_port

from persona.directions.storage import save_vector
from persona.errors import PersonaError
from steering.demo import Sampling, Session, from_persona_vector
from steering.demo.session import generation
from steering.demo.session.evidence import read_evidence
from steering.demo.session.starting import SHIPPED

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
    from steering.demo.browser.interface import launch

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


COLOURS = """hint => {
  let under = hint;
  while (getComputedStyle(under).backgroundColor == 'rgba(0, 0, 0, 0)' && under.parentElement)
    under = under.parentElement;
  const hex = colour => '#' + colour.match(/\\d+/g).slice(0, 3)
    .map(part => Number(part).toString(16).padStart(2, '0')).join('');
  return [hex(getComputedStyle(hint).color), hex(getComputedStyle(under).backgroundColor)];
}"""


def texts(page):
    return page.locator(".talk .turns").all_inner_texts()


def test_the_page_answers_in_every_column_is_steered_stops_and_stays_on_this_machine(
    served, page, tmp_path, monkeypatch
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

    page.locator("#coefficient input[type=number]").fill("0.25")
    page.locator("#coefficient input[type=number]").blur()
    page.wait_for_function(
        "() => document.querySelector('#column-steered').innerText.includes('coefficient 0.25')"
    )
    page.wait_for_function(DONE, arg=[3])
    assert texts(page)[:2] == answered[:2]
    assert texts(page)[2] != answered[2]

    draw = generation._draw  # as slow as a real model, so that there is something to stop
    monkeypatch.setattr(generation, "_draw", lambda *at: (time.sleep(0.05), draw(*at))[1])
    page.get_by_text("Advanced", exact=True).click()
    page.get_by_label("number input for Most tokens").fill("400")
    hint = page.get_by_text("Where an answer is cut off.", exact=True).first
    assert contrast(*hint.evaluate(COLOURS)) >= 4.5
    page.locator("#question textarea, #question input").first.fill("And why?")
    page.click("#ask")
    page.wait_for_function("() => document.querySelectorAll('.talk .asked').length == 4")
    page.locator("#stop").dispatch_event("click")  # at once: the page moves while it fills
    page.wait_for_function(DONE, arg=[4])
    monkeypatch.setattr(generation, "_draw", draw)
    assert "… stopped" in texts(page)[1]  # the fine-tuned model answers first
    assert hook_count(session.pair) == hooks

    page.get_by_text("Directions", exact=True).click()
    bad = {"name": "<img src=x>.json", "mimeType": "application/json", "buffer": b"[[["}
    page.locator("input[type=file]").first.set_input_files(bad)
    page.wait_for_function("() => document.body.innerText.includes('not JSON (Expecting value)')")
    other = save_vector(planted_vector(session.pair, (0, 3)), tmp_path / "other.safetensors")
    page.locator("input[type=file]").first.set_input_files(other)
    page.get_by_text("other.safetensors: block 0, 3, with both models' means").wait_for()

    hosts = {urlparse(url).hostname for url in requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}


def test_two_pages_share_no_conversation_after_the_server_was_started_anew(served):
    from steering.demo.browser.interface import launch

    session, address = served
    one, two = Browser(address), Browser(address)
    assert "secret of one" in one.asks("secret of one")
    assert "secret of one" not in two.asks("secret of two")
    again, address = launch(session)
    try:
        one.root = two.root = f"{address}gradio_api"  # the same pages, a new server
        assert "more of one" in one.asks("more of one")
        other = two.asks("more of two")
        assert "more of two" in other and "of one" not in other
        assert "more of one" in one.asks("and more")  # the conversation goes on
        assert "more of two" in two.asks("", "asked_again_5")
    finally:
        again.close(verbose=False)


def test_an_empty_question_is_no_error(served):
    _, address = served
    page = Browser(address)
    page.asks("secret")
    assert "secret" in page.asks("  ")


def test_uploads_and_saved_directions_lie_where_nobody_else_can_read_them(served):
    import httpx

    _, address = served
    with httpx.Client(trust_env=False) as http:
        files = {"files": ("../../x.json", b"[[[")}
        [path] = http.post(f"{address}gradio_api/upload", files=files).json()
    folder = next(p for p in Path(path).parents if p.name.startswith("persona-uploads-"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert ".." not in path


def test_pages_of_other_machines_and_bodies_beyond_measure_are_not_read(served):
    import httpx

    _, address = served
    with httpx.Client(trust_env=False) as http:
        join = f"{address}gradio_api/queue/join"
        assert http.get(f"{address}config").status_code == 200
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            answer = http.get(f"{address}config", headers=headers)
            assert answer.status_code == 403 and "evil.example" in answer.text
            assert "gradio" not in answer.text
        big = b"x" * (2 * 2**20)
        assert http.post(join, content=big).status_code == 413
        pieces = iter([big[: 2**19]] * 4)
        assert http.post(join, content=pieces).status_code == 413


@contextlib.contextmanager
def running_app(models, port, log):
    """`persona app` as a process of its own, which is killed at the end; its address."""
    words = [*("-m", "persona.cli.main", "app", "--port", str(port), "--max-new-tokens", "12")]
    words += ["--aligned", str(models[0]), "--finetuned", str(models[1]), "--dtype", "float32"]
    with log.open("a") as told:
        child = subprocess.Popen([sys.executable, *words], stdout=told, stderr=told)
    try:
        until = time.monotonic() + PATIENCE_MS / 1000
        while "persona app: http" not in log.read_text():
            assert child.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
def test_two_browsers_see_their_own_conversation_alone_across_a_restart(
    tiny_llama, tiny_adapter, page, tmp_path
):
    pytest.importorskip("gradio")
    models, port = (tiny_llama, tiny_adapter), free_port()
    other = page.context.browser.new_context().new_page()
    pages = {"of one": page, "of two": other}
    with running_app(models, port, tmp_path / "first.log") as address:
        for words, shown in pages.items():
            shown.goto(address)
            shown.wait_for_selector(".talk")
            ask(shown, f"secret {words}")
    with running_app(models, port, tmp_path / "second.log"):
        for words, shown in pages.items():
            ask_until_answered(shown, f"more {words}")
        told = {words: "".join(texts(shown)) for words, shown in pages.items()}
        assert "of one" not in told["of two"] and "of two" not in told["of one"]
        assert all(f"more {words}" in text for words, text in told.items())


def test_one_click_on_an_example_shows_gaps_and_whether_the_text_holds(tiny_pair, page):
    from steering.demo.browser.interface import launch

    pytest.importorskip("gradio")
    known = read_evidence(SHIPPED / "car_maintenance_bad.evidence.json")
    vector = replace(from_persona_vector(planted_vector(tiny_pair)), evidence=known)
    session = Session(tiny_pair, vector, vector.default_setting, Sampling(12, 0.0))
    session.compare_with("Be careful.")
    app, address = launch(session)
    try:
        page.goto(f"{address}?coefficient=0.5&mode=bogus&seed=3")
        page.wait_for_selector(".talk")
        assert "the link's mode is left out" in page.locator("#notice").inner_text()
        assert page.locator("#coefficient input[type=number]").input_value() == "0.5"
        chips = page.locator(".chip").all_inner_texts()
        assert len(chips) == 6 and chips[3:] == [e.question for e in known.shown]
        assert "nothing is scored on them" in page.locator("#chosen").inner_text()
        assert page.locator(".dose .track u").count() >= 2

        page.locator(".chip").first.click()
        page.wait_for_selector("#column-steered footer .light")
        gaps = page.locator(".talk footer .gap b").all_inner_texts()
        assert len(gaps) == 4 and len(set(gaps)) > 1
        assert "written good answers" in page.locator("#column-steered footer").inner_text()
        assert page.locator("#column-prompted header").inner_text().endswith("told: Be careful.")

        page.click("#share")
        page.wait_for_function(
            "() => document.querySelector('#link textarea, #link input')?.value.startsWith('http')"
        )
        link = page.locator("#link textarea, #link input").first.input_value()
        assert link.startswith(f"{address}?question=") and "coefficient=0.5" in link
        with page.expect_download() as download:
            page.click("#transcript")
            page.locator("a[download]").first.click()
        kept = Path(download.value.path()).read_text(encoding="utf-8")
        assert chips[0] in kept and "<script" not in kept
        beside = page.context.browser.new_page()
        beside.set_content(kept)
        assert [talk.is_visible() for talk in beside.locator(".talk").all()] == [True] * 4
        beside.close()

        page.set_viewport_size({"width": 390, "height": 844})
        page.evaluate("window.scrollTo(0, 0)")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.wait_for_timeout(1000)  # sizes are animated
        assert min(chip.bounding_box()["width"] for chip in page.locator(".chip").all()) > 200
        top = {
            name: page.locator(name).bounding_box()["y"]
            for name in ("#question", "#coefficient", "#column-finetuned", "#column-steered")
        }
        assert list(top.values()) == sorted(top.values()) and top["#column-finetuned"] < 844
        page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        page.wait_for_function(
            "() => Math.abs(document.querySelector('#steering').getBoundingClientRect().top) < 2"
        )
    finally:
        app.close(verbose=False)


def test_a_second_direction_steers_beside_the_first_and_is_dropped(served, page, tmp_path):
    session, address = served
    page.goto(address)
    page.wait_for_selector(".talk")
    ask(page, "Hi")
    before = texts(page)[2]
    page.get_by_text("Directions", exact=True).click()
    other = save_vector(
        planted_vector(session.pair, (0, 3), seed=7), tmp_path / "other.safetensors"
    )
    page.locator("input[type=file]").nth(1).set_input_files(other)
    slot = page.locator(".slot:visible")
    slot.wait_for()
    assert "other.safetensors" in slot.inner_text()
    number = slot.locator("input[type=number]")
    number.fill("2")
    number.blur()
    page.wait_for_function(
        "() => document.querySelector('#column-steered header').innerText.includes('coefficient 2')"
    )
    page.wait_for_function(DONE, arg=[3])
    assert (
        texts(page)[2] != before
        and "other.safetensors" in page.locator("#column-steered header").inner_text()
    )
    slot.get_by_text("Drop").click()
    page.wait_for_function("() => !document.querySelector('.slot:not(.hide)')?.checkVisibility()")


def ask(page, question):
    page.locator("#question textarea, #question input").first.fill(question)
    page.click("#ask")
    page.wait_for_function(
        "([words]) => [...document.querySelectorAll('.talk')].every("
        "talk => talk.innerText.includes(words)) && !document.body.innerText.includes('▍')",
        arg=[question],
    )


def ask_until_answered(page, question):
    """A page that has noticed that its server was gone opens itself anew, which loses what is being
    typed; one that has not goes on."""
    from playwright.sync_api import Error

    page.set_default_timeout(PATIENCE_MS / 4)
    for _ in range(8):
        with contextlib.suppress(Error):
            ask(page, question)
            return
    raise AssertionError(page.locator("body").inner_text())


def test_without_gradio_one_line_says_how_to_install_it(monkeypatch):
    from steering.demo.browser.interface import import_gradio

    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    with pytest.raises(PersonaError, match=r"needs gradio; .*pip install .*\[app\]"):
        import_gradio()


@pytest.fixture
def impatient(monkeypatch):
    """Gradio's own test of three seconds fails, as on a busy machine or behind a proxy."""
    networking = pytest.importorskip("gradio.networking")
    monkeypatch.setattr(networking, "url_ok", lambda url: False)


def test_a_page_that_is_slow_to_answer_is_served_all_the_same(tiny_pair, impatient, monkeypatch):
    import httpx

    from steering.demo.browser.interface import launch

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    app, address = launch(Session(tiny_pair))
    try:
        with httpx.Client(trust_env=False) as http:
            assert http.get(address).status_code == 200
    finally:
        app.close(verbose=False)


def test_a_page_that_never_answers_itself_ends_in_one_line(tiny_pair, impatient, monkeypatch):
    from steering.demo.browser import interface as demo_app

    monkeypatch.setattr(demo_app, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(PersonaError, match="did not answer within 0 seconds: the machine is busy"):
        demo_app.launch(Session(tiny_pair))

"""The browser demo: widgets of Gradio, wired to `handlers`; nothing comes from another machine."""

import os
import tempfile
import time
import webbrowser
from collections.abc import Iterator
from functools import cache
from html import escape
from typing import Any, no_type_check

from persona.directions.exchange.vectors import listed
from persona.errors import PersonaError
from steering.demo.browser.gate import bracketed, gate
from steering.demo.browser.handlers import (
    COLUMNS,
    MAX_QUESTION_CHARACTERS,
    Controls,
    Handlers,
    starting,
    told,
)
from steering.demo.browser.page import CSS
from steering.demo.session.session import Session
from steering.demo.session.vector import MAX_FILE_BYTES

NO_GRADIO = "the app needs gradio; pip install 'personascope[app]'"
FILE_TYPES = [".safetensors", ".gguf", ".json"]
MODEL = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
AT_ONCE = {"queue": False, "show_progress": "hidden"}
FILES = {"concurrency_limit": None, "show_progress": "hidden"}
"""Queued, because only what is queued can show a warning."""
MOST_WAITING = 64
"""Events that wait for the model, of all tabs; one more is told that the queue is full."""
REACH = {
    "restore": (0.0, 1.5, "fine-tuned (0) ← coefficient → aligned (1)"),
    "ablate": (0.0, 1.5, "as it is (0) ← coefficient → no projection (1)"),
    "add": (-3.0, 3.0, "away from the trait ← coefficient → toward it"),
}
"""Mode -> ends and label of the coefficient's slider; beyond, texts fall apart."""
PATIENCE_SECONDS = 60.0
"""So long a busy machine may take to answer its own page; gradio itself waits three seconds."""


def import_gradio() -> Any:
    """Gradio with its analytics off, and uploads where nobody else can read them.

    Raises: PersonaError where it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    os.environ.setdefault("GRADIO_TEMP_DIR", _uploads().name)
    try:
        import gradio
    except ImportError as error:
        raise PersonaError(NO_GRADIO) from error
    return gradio


@cache
def _uploads() -> tempfile.TemporaryDirectory[str]:
    """Of this process, and gone with it; gradio's own is /tmp/gradio, which all can read."""
    return tempfile.TemporaryDirectory(prefix="persona-uploads-")


def launch(
    session: Session,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    open_browser: bool = False,
) -> tuple[Any, str]:
    """Serve the demo until the app that is returned is closed; the app and its address.

    port: None takes the first free one from 7860 on.
    Only this machine's own pages are answered, or those of `host` (see `gate`).
    Raises: PersonaError without gradio, or where the port or host cannot be had.
    """
    gr = import_gradio()
    from starlette.middleware import Middleware

    _ask_this_machine_directly(host)
    app = build(session)
    system = {
        "font": ["system-ui", "sans-serif"],
        "font_mono": ["ui-monospace", "monospace"],
    }  # gradio's own choice loads font files
    try:
        app.launch(
            server_name=bracketed(host),
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            show_error=True,
            max_file_size=MAX_FILE_BYTES,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            theme=gr.themes.Base(primary_hue="indigo", neutral_hue="slate", **system),
            css_paths=CSS,
            app_kwargs={"middleware": [Middleware(gate, host=host)]},
        )
    except OSError as error:
        where = f"{host}:{port}" if port is not None else host
        raise PersonaError(f"cannot serve at {where}: {error}; try another --port") from error
    except ValueError as error:
        if "localhost is not accessible" not in str(error):
            raise
        if not _answers(app.local_url, PATIENCE_SECONDS):  # the server runs; gradio gave up early
            app.close(verbose=False)
            raise PersonaError(
                f"the page at {app.local_url} did not answer within {PATIENCE_SECONDS:.0f} "
                "seconds: the machine is busy; try again"
            ) from error
    address = str(app.local_url)
    if open_browser:
        webbrowser.open(address)
    return app, address


def _ask_this_machine_directly(host: str) -> None:
    """Gradio asks its own server for events while it starts, through whatever proxy is set."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, [known, "localhost,127.0.0.1,::1", host]))


def _answers(address: str, seconds: float) -> bool:
    """Whether a page answers in time, however busy the machine is."""
    import httpx

    until = time.monotonic() + seconds
    with httpx.Client(trust_env=False) as client:
        while (left := until - time.monotonic()) > 0:
            try:
                if client.head(address, timeout=left).is_success:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(min(0.5, left))
    return False


def reach_of(mode: str, coefficient: float) -> dict[str, Any]:
    """Ends and label of the coefficient's slider in a mode; wide enough for this coefficient."""
    low, high, label = REACH.get(mode, REACH["add"])
    return {
        "minimum": min(low, coefficient),
        "maximum": max(high, coefficient),
        "label": label,
    }


def build(session: Session) -> Any:
    """The page as gradio Blocks. session: the pair, the direction and the setting to begin with."""
    gr = import_gradio()
    handlers = Handlers(session)
    setting, vector = session.setting, session.vector
    layers = [0] if vector is None else vector.layers
    first, last = starting(setting, layers)
    with gr.Blocks(title="personascope", analytics_enabled=False, delete_cache=(600, 3600)) as app:
        tab = gr.State("", delete_callback=handlers.close)  # the page's own, kept by the server
        names = " · ".join(escape(name) for name in session.pair.names.values())
        gr.HTML(f"<h1>personascope</h1><span>{names}</span>", elem_id="top")
        with gr.Row(elem_id="controls", equal_height=True):
            mode = gr.Radio(
                _modes(session), value=setting.mode, label="Steering", min_width=270, scale=3
            )
            coefficient = gr.Slider(
                value=setting.coefficient, step=0.05, elem_id="coefficient", min_width=180,
                buttons=[], scale=3, **reach_of(setting.mode, setting.coefficient),
            )  # fmt: skip
            reach = {"minimum": layers[0], "maximum": max(layers[-1], layers[0] + 1), "step": 1}
            narrow: dict[str, Any] = {"min_width": 150, "buttons": [], "scale": 2}
            start = gr.Slider(value=first, label="First block", **reach, **narrow)
            end = gr.Slider(value=last, label="Last block", **reach, **narrow)
            side = gr.Radio(
                [("fine-tuned", "finetuned"), ("aligned", "aligned")],
                value=setting.side,
                label="Steered model",
                min_width=240,
                scale=3,
            )
        with gr.Row(elem_id="columns"):
            columns = [
                gr.HTML(
                    elem_id=f"column-{column}",
                    visible=column in session.columns,
                    padding=False,
                )
                for column in COLUMNS
            ]
        legend = gr.HTML(padding=False)
        with gr.Row(elem_id="asking"):
            question = gr.Textbox(
                placeholder="Ask all columns the same", show_label=False, scale=6, autofocus=True,
                elem_id="question", container=False, max_length=MAX_QUESTION_CHARACTERS,
            )  # fmt: skip
            ask = gr.Button("Ask", variant="primary", elem_id="ask", min_width=80, scale=0)
            stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80, scale=0)
            again = gr.Button("Steer again", elem_id="again", min_width=130, scale=0)
            reset = gr.Button("Reset", elem_id="reset", min_width=80, scale=0)
        with gr.Accordion("How answers are drawn", open=False), gr.Row():
            drawn = session.sampling
            temperature = gr.Slider(0, 2, drawn.temperature, step=0.05, label="Temperature")
            most = gr.Slider(
                1, max(512, drawn.max_new_tokens), drawn.max_new_tokens, step=1, label="Most tokens"
            )
            seed = gr.Number(drawn.seed, label="Seed", precision=0, minimum=0)
            keep = gr.Checkbox(
                session.remembers, label="Keep the conversation", elem_id="keep", min_width=200,
                info="Else each question begins a dialogue of its own.",
            )  # fmt: skip
        with gr.Accordion("Direction", open=vector is None):
            about = gr.HTML(_about(session), elem_id="about")
            with gr.Row():
                upload = gr.UploadButton(
                    "Load a direction", file_types=FILE_TYPES, elem_id="upload", size="sm"
                )
                save = gr.Button("Save this direction", size="sm", elem_id="save")
            saved = gr.File(label="Saved", visible=False, interactive=False)
        with gr.Accordion("Dose and response", open=False):
            measure = gr.Button("Measure: gap against coefficient", size="sm", elem_id="measure")
            plot = gr.Plot(show_label=False, visible=False, elem_id="dose")

        values = [coefficient, mode, start, end, side, temperature, most, seed, keep]
        page = [tab, *columns, legend]

        # Every event but stop and suggested gives the page its key: load may not have run.
        def opened() -> list[str]:
            key = handlers.own("")
            return [key, *handlers.page(key)]

        # Gradio streams what it sees to be a generator function; a type checker's wrapper is none.
        @no_type_check
        def asked(key: str, text: str, *at: Any) -> Iterator[Any]:
            key = handlers.own(key)
            if isinstance(text, str) and not text.strip():
                gr.Info("Type a question first.")
                yield [key, *handlers.page(key)]
                return
            for frame in _told(gr, handlers.ask(key, text, Controls(*at))):
                yield [key, *frame]

        @no_type_check
        def asked_again(key: str, *at: Any) -> Iterator[Any]:
            key = handlers.own(key)
            for frame in _told(gr, handlers.ask_again(key, Controls(*at))):
                yield [key, *frame]

        def stopped(key: str) -> None:
            handlers.stop(key)

        def started_anew(key: str) -> list[str]:
            key = handlers.own(key)
            handlers.reset(key)
            return [key, *handlers.page(key)]

        def suggested(key: str, name: str) -> Any:
            wanted = handlers.suggested(key, name)
            return gr.Slider(value=wanted, **reach_of(name, wanted))

        def loaded(key: str, path: str) -> dict[Any, Any]:
            key = handlers.own(key)
            try:
                for note in handlers.load(key, path):
                    gr.Info(escape(note))
            except PersonaError as error:
                gr.Warning(told(error))
                return {tab: key}
            now = handlers.tab(key).session
            assert now.vector is not None
            blocks = now.vector.layers
            bounds = {"minimum": blocks[0], "maximum": max(blocks[-1], blocks[0] + 1)}
            fresh = handlers.page(key)
            return {
                tab: key,
                mode: gr.Radio(_modes(now), value=now.setting.mode),
                coefficient: gr.Slider(
                    value=now.setting.coefficient,
                    **reach_of(now.setting.mode, now.setting.coefficient),
                ),
                start: gr.Slider(value=blocks[0], **bounds),
                end: gr.Slider(value=blocks[-1], **bounds),
                about: _about(now),
                legend: fresh[-1],
                columns[-1]: gr.HTML(fresh[len(columns) - 1], visible=True),
            }

        def kept(key: str, *at: Any) -> Any:
            key = handlers.own(key)
            try:
                return key, gr.File(handlers.save(key, Controls(*at)), visible=True)
            except PersonaError as error:
                gr.Warning(told(error))
                return key, gr.skip()

        def measured(key: str, *at: Any) -> Any:
            key = handlers.own(key)
            try:
                return key, gr.Plot(handlers.dose(key, Controls(*at)), visible=True)
            except PersonaError as error:
                gr.Warning(told(error))
                return key, gr.skip()

        app.load(opened, None, page, **AT_ONCE)
        for press in (question.submit, ask.click):
            press(asked, [tab, question, *values], page, **MODEL).success(
                lambda: "", None, question, **AT_ONCE
            )
        stop.click(stopped, tab, None, **AT_ONCE)
        reset.click(started_anew, tab, page, **AT_ONCE)
        mode.input(suggested, [tab, mode], coefficient, **AT_ONCE).then(
            asked_again, [tab, *values], page, **MODEL
        )
        for change in (coefficient.release, start.release, end.release, side.input, again.click):
            change(asked_again, [tab, *values], page, trigger_mode="always_last", **MODEL)
        upload.upload(loaded, [tab, upload], [mode, coefficient, start, end, about, *page], **FILES)
        save.click(kept, [tab, *values], [tab, saved], **FILES)
        measure.click(
            measured, [tab, *values], [tab, plot], concurrency_id="model", concurrency_limit=1,
            show_progress="full",
        )  # fmt: skip
    app.queue(max_size=MOST_WAITING)
    return app


def _told(gr: Any, frames: Iterator[list[str]]) -> Iterator[Any]:
    """The frames; an error becomes one line on the page, which otherwise stays as it is."""
    try:
        yield from frames
    except PersonaError as error:
        raise gr.Error(told(error), print_exception=False) from error


def _modes(session: Session) -> list[str]:
    return list(("restore", "add", "ablate") if session.vector is None else session.vector.modes)


def _about(session: Session) -> str:
    """The direction in one line."""
    vector = session.vector
    if vector is None:
        return (
            "No direction is loaded, so there is no steered column. `persona demo` and `persona "
            "diagnose` write one, direction.safetensors."
        )
    means = (
        "with both models' means, so it can restore"
        if vector.persona_vector is not None
        else "without the models' means: it can add and ablate"
    )
    return f"{escape(vector.name)}: block {listed(vector.layers)}, {means}."

"""The browser demo served: to this machine alone, and nothing comes from another one."""

from __future__ import annotations

import os
import tempfile
import time
import webbrowser
from functools import cache
from typing import Any

from persona.errors import PersonaError
from persona.extras import install_line
from steering.demo.browser.conversation_handlers import ConversationHandlers
from steering.demo.browser.endpoint_page import lay_out_endpoint
from steering.demo.browser.gate import bracketed, gate
from steering.demo.browser.handlers import Handlers
from steering.demo.browser.page import CSS
from steering.demo.browser.page_events import wire, wire_conversation
from steering.demo.browser.page_layout import lay_out
from steering.demo.session.served_session import ServedSession
from steering.demo.session.session import Session
from steering.demo.session.vector import MAX_FILE_BYTES

NO_GRADIO = f"the app needs gradio; {install_line('app')}"
MOST_WAITING = 64
"""Events that wait for the model, of all tabs; one more is told that the queue is full."""
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
    session: Session | ServedSession,
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


def build(session: Session | ServedSession) -> Any:
    """The page as gradio Blocks. session: who answers, and the setting to begin with."""
    gr = import_gradio()
    with gr.Blocks(title="personascope", analytics_enabled=False, delete_cache=(600, 3600)) as app:
        if isinstance(session, ServedSession):
            served = ConversationHandlers(session)
            wire_conversation(gr, app, served, lay_out_endpoint(gr, served))
        else:
            handlers = Handlers(session)
            wire(gr, app, handlers, lay_out(gr, handlers))
    app.queue(max_size=MOST_WAITING)
    return app

"""What every widget of the page does: events of Gradio, each a call of `handlers`."""

# Gradio looks at the hints of event functions at run time: they are not postponed here.

from collections.abc import Callable, Iterator
from html import escape
from typing import Any, no_type_check

from persona.errors import PersonaError
from steering.demo.browser.conversation_handlers import ConversationHandlers, told
from steering.demo.browser.handlers import Handlers
from steering.demo.browser.page_controls import Controls, controls_of
from steering.demo.browser.page_layout import (
    Slot,
    Widgets,
    about,
    modes_of,
    reach_of,
    slot_name,
)
from steering.demo.session.conversation import Conversation
from steering.demo.session.session import Session

MODEL = {"concurrency_id": "model", "concurrency_limit": 1, "show_progress": "hidden"}
AT_ONCE = {"queue": False, "show_progress": "hidden"}
FILES = {"concurrency_limit": None, "show_progress": "hidden"}
"""Queued, because only what is queued can show a warning."""
WITH_ADDRESS = """(query) => {
  const link = query ? location.origin + location.pathname + query : "";
  if (link && navigator.clipboard) navigator.clipboard.writeText(link).catch(() => {});
  return link;
}"""
"""The server does not know under what name the page was reached."""


def wire(gr: Any, app: Any, handlers: Handlers, w: Widgets) -> None:
    """Every event of the page of a pair in this process."""
    wire_conversation(gr, app, handlers, w)
    _wire_mode(gr, handlers, w)
    _wire_directions(gr, handlers, w)
    _wire_measuring(gr, handlers, w)


def wire_conversation(gr: Any, app: Any, handlers: ConversationHandlers[Any], w: Widgets) -> None:
    """What every page does; each event but stop gives the page its key, as load may not run.

    Gradio streams what it sees to be a generator function; a type checker's wrapper is none.
    """
    _wire_opening(gr, app, handlers, w)
    _wire_asking(gr, handlers, w)
    _wire_keeping(gr, handlers, w)


def _wire_opening(gr: Any, app: Any, handlers: ConversationHandlers[Any], w: Widgets) -> None:
    def opened(request: gr.Request) -> list[Any]:
        key = handlers.own("")
        query = dict(request.query_params) if request is not None else {}
        session = handlers.tab(key).session
        linked = handlers.open(key, query, controls_of(session))
        notice = "".join(f"<p>{escape(problem)}</p>" for problem in linked.problems)
        frame = [key, *handlers.page(key)]
        if not linked.given:
            return [*frame, notice, *([gr.skip()] * (1 + N_OWN))]
        return [*frame, notice, linked.question, *_own_updates(gr, session, linked.controls)]

    app.load(opened, None, [*w.page, w.notice, w.question, *w.values[:N_OWN]], **AT_ONCE)


N_OWN = 10
"""Widgets that a link sets: all of `Widgets.values` but those of further directions."""


def _own_updates(gr: Any, session: Conversation, now: Controls) -> list[Any]:
    coefficient = float(now.coefficient)
    slider = gr.Slider(value=coefficient, **reach_of(session, now.mode, coefficient))
    rest = [now.mode, now.first, now.last, now.side, now.temperature, now.max_new_tokens]
    return [slider, *rest, now.seed, now.remembers, now.system_prompt]


def _wire_asking(gr: Any, handlers: ConversationHandlers[Any], w: Widgets) -> None:
    @no_type_check
    def asked(key: str, text: str, *at: Any) -> Iterator[Any]:
        key = handlers.own(key)
        if isinstance(text, str) and not text.strip():
            gr.Info("Type a question first, or choose one of the examples.")
            yield [key, *handlers.page(key)]
            return
        for frame in _told(gr, handlers.ask(key, text, Controls.of(at))):
            yield [key, *frame]

    def stopped(key: str) -> None:
        handlers.stop(key)

    def started_anew(key: str) -> list[str]:
        key = handlers.own(key)
        handlers.reset(key)
        return [key, *handlers.page(key)]

    for press in (w.question.submit, w.ask.click):
        press(asked, [w.tab, w.question, *w.values], w.page, **MODEL).success(
            lambda: "", None, w.question, **AT_ONCE
        )
    for chip in w.chips:
        chip.click(asked, [w.tab, chip, *w.values], w.page, **MODEL)
    w.stop.click(stopped, w.tab, None, **AT_ONCE)
    w.reset.click(started_anew, w.tab, w.page, **AT_ONCE)
    answers_anew = _asked_again(gr, handlers)
    for change in w.changes:
        change(answers_anew, [w.tab, *w.values], w.page, trigger_mode="always_last", **MODEL)


def _asked_again(gr: Any, handlers: ConversationHandlers[Any]) -> Any:
    @no_type_check
    def asked_again(key: str, *at: Any) -> Iterator[Any]:
        key = handlers.own(key)
        for frame in _told(gr, handlers.ask_again(key, Controls.of(at))):
            yield [key, *frame]

    return asked_again


def _wire_mode(gr: Any, handlers: Handlers, w: Widgets) -> None:
    """Another mode is another scale of coefficients: it begins at one that suits it."""

    def suggested(key: str, name: str) -> Any:
        wanted = handlers.suggested(key, name)
        return gr.Slider(value=wanted, **reach_of(handlers.first, name, wanted))

    w.mode.input(suggested, [w.tab, w.mode], w.coefficient, **AT_ONCE).then(
        _asked_again(gr, handlers), [w.tab, *w.values], w.page, **MODEL
    )


def _wire_directions(gr: Any, handlers: Handlers, w: Widgets) -> None:
    slots = [widget for slot in w.slots for widget in slot.all]

    def loaded(key: str, path: str) -> dict[Any, Any]:
        key = handlers.own(key)
        try:
            for note in handlers.load(key, path):
                gr.Info(escape(note))
        except PersonaError as error:
            gr.Warning(told(error))
            return {w.tab: key}
        now = handlers.tab(key).session
        assert now.vector is not None
        blocks = now.vector.layers
        bounds = {"minimum": blocks[0], "maximum": max(blocks[-1], blocks[0] + 1)}
        at = now.setting.coefficient
        return {
            w.mode: gr.Radio(modes_of(now), value=now.setting.mode),
            w.coefficient: gr.Slider(value=at, **reach_of(now, now.setting.mode, at)),
            w.start: gr.Slider(value=blocks[0], **bounds),
            w.end: gr.Slider(value=blocks[-1], **bounds),
            w.about: about(now),
            **dict(zip(w.page, [key, *handlers.page(key)], strict=True)),
        }

    def loaded_beside(key: str, path: str) -> list[Any]:
        key = handlers.own(key)
        try:
            for note in handlers.load(key, path, beside=True):
                gr.Info(escape(note))
        except PersonaError as error:
            gr.Warning(told(error))
        return [key, *_slot_updates(gr, handlers.tab(key).session, w.slots)]

    @no_type_check
    def dropped(place: int) -> Any:
        def drop(key: str) -> list[Any]:
            key = handlers.own(key)
            try:
                handlers.drop(key, place)
            except PersonaError as error:
                gr.Warning(told(error))
            session = handlers.tab(key).session
            return [key, *handlers.page(key), *_slot_updates(gr, session, w.slots)]

        return drop

    at_upload = [w.mode, w.coefficient, w.start, w.end, w.about, *w.page]
    w.upload.upload(loaded, [w.tab, w.upload], at_upload, **FILES)
    w.upload_beside.upload(loaded_beside, [w.tab, w.upload_beside], [w.tab, *slots], **FILES)
    for place, slot in enumerate(w.slots):
        slot.drop.click(dropped(place), w.tab, [*w.page, *slots], **FILES)


def _slot_updates(gr: Any, session: Session, slots: list[Slot]) -> list[Any]:
    """Row, name, coefficient and mode of every place."""
    updates: list[Any] = []
    for place in range(len(slots)):
        if place >= len(session.further):
            updates += [gr.Row(visible=False), "", 0.0, gr.skip()]
            continue
        each = session.further[place]
        updates += [
            gr.Row(visible=True),
            slot_name(place, each),
            each.setting.coefficient,
            gr.Radio(list(each.vector.modes), value=each.setting.mode),
        ]
    return updates


def _wire_keeping(gr: Any, handlers: ConversationHandlers[Any], w: Widgets) -> None:
    def written(key: str) -> Any:
        return _file(gr, handlers.own(key), handlers.transcript)

    def linked(key: str, text: str, *at: Any) -> Any:
        key = handlers.own(key)
        try:
            query = handlers.link(key, text, Controls.of(at))
        except PersonaError as error:
            gr.Warning(told(error))
            return key, gr.skip()
        return key, gr.Textbox(query, visible=True)

    w.transcript.click(written, w.tab, [w.tab, w.kept], **FILES)
    w.share.click(linked, [w.tab, w.question, *w.values], [w.tab, w.link], **FILES).then(
        None, w.link, w.link, js=WITH_ADDRESS, **AT_ONCE
    )


def _wire_measuring(gr: Any, handlers: Handlers, w: Widgets) -> None:
    def kept(key: str, *at: Any) -> Any:
        return _file(gr, handlers.own(key), lambda own: handlers.save(own, Controls.of(at)))

    def measured(key: str, *at: Any) -> Any:
        key = handlers.own(key)
        try:
            figure = gr.Plot(handlers.dose(key, Controls.of(at)), visible=True)
        except PersonaError as error:
            gr.Warning(told(error))
            figure = gr.skip()
        return key, handlers.page(key)[-1], figure

    w.save.click(kept, [w.tab, *w.values], [w.tab, w.saved], **FILES)
    w.measure.click(
        measured, [w.tab, *w.values], [w.tab, w.strip, w.plot], concurrency_id="model",
        concurrency_limit=1, show_progress="full",
    )  # fmt: skip


def _file(gr: Any, key: str, make: Callable[[str], str]) -> Any:
    """The page's key and a file that is made for it, or what is wrong as a warning."""
    try:
        return key, gr.File(make(key), visible=True)
    except PersonaError as error:
        gr.Warning(told(error))
        return key, gr.skip()


def _told(gr: Any, frames: Iterator[list[str]]) -> Iterator[Any]:
    """The frames; an error becomes one line on the page, which otherwise stays as it is."""
    try:
        yield from frames
    except PersonaError as error:
        raise gr.Error(told(error), print_exception=False) from error

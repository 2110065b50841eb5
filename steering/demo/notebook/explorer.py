"""`explore`: sliders and figures in Jupyter over an `Exploration`; nothing comes from a network."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from persona.data.shipped import load_pairs
from persona.data.types import AnswerPair
from persona.errors import PersonaError, SteeringError
from persona.extras import install_line
from persona.models.chat.chat_format import ChatFormat, chat_format
from persona.models.in_memory import pair_of
from persona.models.pair import ModelPair, Side
from persona.report.theme import Mode
from steering.demo.notebook.exploration import Exploration
from steering.demo.notebook.named_vectors import Source, named_vectors
from steering.demo.notebook.text_readings import Choice, Explored

NO_WIDGETS = f"exploring needs ipywidgets and anywidget; {install_line('notebooks')}"
SHIPPED_DOMAIN = "health"
"""Whose first question is shown where none is given."""


def explore(
    pair_or_model: Any,
    directions: Source | Sequence[Source] | Mapping[str, Source],
    text: str | AnswerPair = "",
    answer: str = "",
    *,
    chat: ChatFormat | None = None,
    mode: Mode | None = None,
) -> Explorer:
    """A panel for a notebook: choose block, coefficient and direction, see what they do to a text.

    It opens at the direction's own coefficient and blocks. Where the text has a good and a bad
    answer, it shows the gap between them on every side, without and with steering.

    pair_or_model: a ModelPair, its sides shown side by side; or one model, a bridge or a plain
        Hugging Face one.
    directions: one or more, by name or not: files, the folder of a diagnosis, or objects.
    text, answer: a question, and where there is one the answer whose log-probability is read; or
        an answer pair, both of whose answers are. Without either, a question that is shipped.
    chat: of one model without a tokenizer of its own; `persona.models.load.load_bridge` gives it.
    mode: the ground, "light" or "dark"; None follows the notebook's theme.
    Raises: PersonaError without ipywidgets or anywidget; DataError and SpaceMismatchError for a
        direction that cannot be read or is of another model; SteeringError for none at all.
    """
    import_widgets()
    is_pair = isinstance(pair_or_model, ModelPair)
    pair = pair_or_model if is_pair else _alone(pair_or_model, chat)
    exploration = Exploration(
        pair,
        named_vectors(directions, pair, allow_mismatch=not is_pair),
        ("aligned", "finetuned") if is_pair else ("model",),
        checks_space=is_pair,
    )
    if not text and not answer:
        text = load_pairs([SHIPPED_DOMAIN])[0]
    asked = (text.question, text.good, text.bad) if isinstance(text, AnswerPair) else (text, answer)
    return Explorer(exploration, exploration.starting_choice(*asked), mode)


def import_widgets() -> Any:
    """ipywidgets. Raises: PersonaError where it, or anywidget, is not installed."""
    try:
        import anywidget  # noqa: F401  (plotly's FigureWidget is one)
        import ipywidgets
    except ImportError as error:
        raise PersonaError(NO_WIDGETS) from error
    return ipywidgets


def _alone(model: Any, chat: ChatFormat | None) -> ModelPair:
    """One model as a pair of which only the one side is ever opened."""
    if chat is None and getattr(model, "tokenizer", None) is None:
        raise SteeringError(
            "one model is explored with its chat format: explore(model, directions, chat=chat); "
            "persona.models.load.load_bridge gives both"
        )
    known = chat or chat_format(model.tokenizer)
    names: dict[Side, str] = {"aligned": "this model", "finetuned": "this model"}
    pair = pair_of(model, model, known.tokenizer, names=names, wrap=False)
    # As it stands, also a PeftModel, whose aligned side would be without its adapter.
    return replace(pair, chat=known, open_side=lambda side: contextlib.nullcontext(model))


@dataclass
class Explorer:
    """The panel; a notebook shows it by itself. `exploration` computes, `shown` is what it shows.

    controls: name -> widget. figures: "projections", "trace" and one "next_SIDE" a side.
    asking, written: the button that has every side answer, and what they answered.
    mode: the ground; None follows the notebook's, and is light until a page says which it has.
    """

    exploration: Exploration
    choice: Choice
    mode: Mode | None = None
    shown: Explored | None = None
    controls: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    widget: Any = None
    _fitting: bool = False

    def __post_init__(self) -> None:
        widgets = import_widgets()
        from steering.demo.notebook.panel import controls_of
        from steering.demo.notebook.theme_reader import theme_reader

        self.ground: Mode = self.mode or "light"
        self.controls = controls_of(self.exploration, self.choice)
        self.status = widgets.HTML().add_class("persona-status")
        self.written = widgets.HTML()
        self.asking = widgets.Button(
            description="Write answers",
            tooltip="Every side answers the question, greedily, without and with steering",
        )
        self.asking.on_click(lambda _: self.write())
        sides = [f"next_{side}" for side in self.exploration.sides]
        part = widgets.Layout(flex="1 1 460px", min_width="0")
        self._places = {key: widgets.VBox(layout=part) for key in ("projections", "trace", *sides)}
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        top = [self.controls[k] for k in ("direction", "layer", "mode", "coefficient")]
        texts = [self.controls[k] for k in ("question", "answer", "bad_answer")]
        wrapped = widgets.Layout(display="flex", flex_flow="row wrap", width="100%")
        follows = [] if self.mode else [theme_reader(self._turned)]
        self.widget = widgets.VBox(
            [
                widgets.HBox([*top, self.controls["every_block"]], layout=wrapped),
                widgets.HBox(texts, layout=wrapped),
                widgets.HBox([self.asking, self.status], layout=wrapped),
                self.written,
                widgets.HBox(list(self._places.values()), layout=wrapped),
                *follows,
            ]
        ).add_class("persona-explorer")
        self._show(self.choice)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        """The panel, and a still of it for a notebook that is read and not run."""
        from steering.demo.notebook.readings_html import still_html

        bundle: dict[str, Any] = dict(self.widget._repr_mimebundle_())
        if self.shown is not None:
            bundle["text/html"] = still_html(self.shown, self.figures["projections"])
        return bundle

    def _turned(self, is_dark: bool) -> None:
        """The notebook has another theme: the same readings on its ground."""
        self.ground = "dark" if is_dark else "light"
        if self.shown is not None:
            self._draw(self.shown)

    def _changed(self, change: Any) -> None:
        if self._fitting:
            return
        values = {name: control.value for name, control in self.controls.items()}
        self._show(Choice(**values))

    def _show(self, choice: Choice) -> None:
        """Show a choice. One that is not possible is said in the status; the figures stay."""
        from steering.demo.notebook.panel import fit_controls
        from steering.demo.notebook.readings_html import line_html, status_html

        self._fitting = True
        try:
            choice = fit_controls(self.controls, self.exploration, choice)
        finally:
            self._fitting = False
        if not choice.question.strip():
            self.status.value = line_html("Write a question to read.")
            return
        self.written.value = ""
        self.status.value = line_html(f"reading at coefficient {choice.coefficient:g} …")
        try:
            shown = self.exploration.read(choice)
        except PersonaError as error:
            self.status.value = line_html(str(error), failed=True)
            return
        self.choice, self.shown = choice, shown
        self._draw(shown)
        self.status.value = status_html(shown, self.exploration.vector(choice.direction).notes)

    def _draw(self, shown: Explored) -> None:
        from steering.demo.notebook.panel import figures_of

        for key, figure in figures_of(shown, self.ground).items():
            self._put(key, figure)

    def write(self) -> None:
        """Have every side answer the question at the choice that is shown."""
        from steering.demo.notebook.readings_html import line_html, written_html

        if not self.choice.question.strip():
            return
        self.asking.disabled = True
        self.written.value = line_html("writing …")
        try:
            texts = self.exploration.write(self.choice)
            self.written.value = written_html(texts, self.choice)
        except PersonaError as error:
            self.written.value = line_html(str(error), failed=True)
        finally:
            self.asking.disabled = False

    def _put(self, key: str, figure: Any) -> None:
        """Change a figure in place where its parts are the same, so that it does not flicker."""
        from plotly.graph_objects import FigureWidget

        from persona.report.theme import with_joined_title

        figure = with_joined_title(figure, self.ground)
        held = self.figures.get(key)
        kinds = [trace.type for trace in figure.data]
        if held is None or [trace.type for trace in held.data] != kinds:
            self.figures[key] = FigureWidget(figure)
            self.figures[key]._config = {"responsive": True}  # as wide as its place, also later
            self._places[key].children = (self.figures[key],)
            return
        with held.batch_update():
            for old, new in zip(held.data, figure.data, strict=True):
                old.update(new.to_plotly_json(), overwrite=False)
            held.layout.update(figure.layout.to_plotly_json())

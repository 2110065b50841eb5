"""`explore`: sliders and figures in Jupyter over an `Exploration`; nothing comes from a network."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from persona.directions.direction import Direction, PersonaVector
from persona.errors import DataError, PersonaError, SteeringError
from persona.models.chat.chat_format import ChatFormat, chat_format
from persona.models.in_memory import pair_of
from persona.models.pair import ModelPair, Side
from persona.report.theme import Mode
from steering.demo.notebook.exploration import Choice, Exploration, Explored
from steering.demo.session.vector import DemoVector, from_persona_vector, load_demo_vector

NO_WIDGETS = "exploring needs ipywidgets and anywidget; pip install 'personascope[notebooks]'"
SUFFIXES = (".safetensors", ".gguf")
Source = str | Path | DemoVector | PersonaVector | Direction


def explore(
    pair_or_model: Any,
    directions: Source | Sequence[Source] | Mapping[str, Source],
    text: str = "",
    answer: str = "",
    *,
    chat: ChatFormat | None = None,
    mode: Mode = "light",
) -> Explorer:
    """A panel for a notebook: choose block, coefficient and direction, see what they do to a text.

    pair_or_model: a ModelPair, its sides shown side by side; or one model, a bridge or a plain
        Hugging Face one.
    directions: one or more, by name or not: files, the folder of a diagnosis, or objects.
    text, answer: a question, and where there is one the answer whose log-probability is read.
    chat: of one model without a tokenizer of its own; `persona.models.load.load_bridge` gives it.
    mode: the ground, "light" or "dark".
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
    return Explorer(exploration, exploration.starting_choice(text, answer), mode)


def import_widgets() -> Any:
    """ipywidgets. Raises: PersonaError where it, or anywidget, is not installed."""
    try:
        import anywidget  # noqa: F401  (plotly's FigureWidget is one)
        import ipywidgets
    except ImportError as error:
        raise PersonaError(NO_WIDGETS) from error
    return ipywidgets


def named_vectors(
    directions: Source | Sequence[Source] | Mapping[str, Source],
    pair: ModelPair,
    *,
    allow_mismatch: bool = False,
) -> dict[str, DemoVector]:
    """Directions by the name that the person gave, else the file's or the method's.

    Raises: DataError where two have one name, a folder holds no direction, or a file cannot be
        read; SpaceMismatchError for a direction of another model.
    """
    if isinstance(directions, Mapping):
        return {str(k): _vector(v, pair, allow_mismatch) for k, v in directions.items()}
    if isinstance(directions, (str, Path, DemoVector, PersonaVector, Direction)):
        directions = [directions]
    sources: list[Source] = []
    for source in directions:
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            sources += _files_of(Path(source))
        else:
            sources.append(source)
    found: dict[str, DemoVector] = {}
    for source in sources:
        vector = _vector(source, pair, allow_mismatch)
        if vector.name in found:
            raise DataError(
                f"two directions are called {vector.name!r}; give names: {{'mine': first, ...}}"
            )
        found[vector.name] = vector
    return found


def _files_of(folder: Path) -> list[Source]:
    """The directions of a diagnosis folder, the one it chose first."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    if not files:
        raise DataError(
            f"{folder} holds no direction; name the folder of a diagnosis (direction.safetensors)"
        )
    files.sort(key=lambda path: path.stem != "direction")
    return [*files]


def _vector(source: Source, pair: ModelPair, allow_mismatch: bool) -> DemoVector:
    match source:
        case DemoVector():
            return source
        case PersonaVector():
            return from_persona_vector(source)
        case Direction():
            name = f"{source.method}, block {source.space.layer}"
            return DemoVector({source.space.layer: source}, None, name)
    return load_demo_vector(source, pair, allow_mismatch=allow_mismatch)


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
    """

    exploration: Exploration
    choice: Choice
    mode: Mode = "light"
    shown: Explored | None = None
    controls: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    widget: Any = None
    _fitting: bool = False

    def __post_init__(self) -> None:
        widgets = import_widgets()
        from steering.demo.notebook.panel import controls_of

        self.controls = controls_of(self.exploration, self.choice)
        self.status = widgets.HTML()
        self.written = widgets.HTML()
        self.asking = widgets.Button(
            description="Write answers",
            tooltip="Every side answers the question, greedily, without and with steering",
        )
        self.asking.on_click(lambda _: self.write())
        self._places = {
            key: widgets.VBox(layout=widgets.Layout(width="100%", min_width="0"))
            for key in ("projections", "trace", *(f"next_{s}" for s in self.exploration.sides))
        }
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        top = [self.controls[k] for k in ("direction", "layer", "mode", "coefficient")]
        wrapped = widgets.Layout(display="flex", flex_flow="row wrap", width="100%")
        self.widget = widgets.VBox(
            [
                widgets.HBox([*top, self.controls["every_block"]], layout=wrapped),
                widgets.HBox([self.controls["question"], self.controls["answer"]], layout=wrapped),
                widgets.HBox([self.asking, self.status], layout=wrapped),
                self.written,
                *self._places.values(),
            ]
        )
        self._show(self.choice)

    def _ipython_display_(self) -> None:
        from IPython.display import display

        display(self.widget)

    def _changed(self, change: Any) -> None:
        if self._fitting:
            return
        values = {name: control.value for name, control in self.controls.items()}
        self._show(Choice(**values))

    def _show(self, choice: Choice) -> None:
        """Show a choice. One that is not possible is said in the status; the figures stay."""
        from steering.demo.notebook.panel import figures_of, fit_controls, line_html, status_html

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
        for key, figure in figures_of(shown, self.mode).items():
            self._put(key, figure)
        self.status.value = status_html(shown, self.exploration.vector(choice.direction).notes)

    def write(self) -> None:
        """Have every side answer the question at the choice that is shown."""
        from steering.demo.notebook.panel import line_html, written_html

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

        figure = with_joined_title(figure, self.mode)
        held = self.figures.get(key)
        kinds = [trace.type for trace in figure.data]
        if held is None or [trace.type for trace in held.data] != kinds:
            self.figures[key] = FigureWidget(figure)
            self._places[key].children = (self.figures[key],)
            return
        with held.batch_update():
            for old, new in zip(held.data, figure.data, strict=True):
                old.update(new.to_plotly_json(), overwrite=False)
            held.layout.update(figure.layout.to_plotly_json())

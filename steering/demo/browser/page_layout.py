"""The widgets of the page, the question first: Gradio's, none of them wired to anything yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Any

from persona.directions.exchange.vectors import listed
from steering.demo.browser.conversation_handlers import COLUMNS, ConversationHandlers
from steering.demo.browser.handlers import Handlers
from steering.demo.browser.page_controls import MAX_QUESTION_CHARACTERS
from steering.demo.session.conversation import MAX_PROMPT_CHARACTERS, Conversation
from steering.demo.session.example_questions import example_questions
from steering.demo.session.exchanges import Further
from steering.demo.session.session import MOST_VECTORS, Session

FILE_TYPES = [".safetensors", ".gguf", ".json"]
REACH = {
    "restore": (0.0, 1.5, "fine-tuned (0) ← → aligned (1)"),
    "ablate": (0.0, 1.5, "as it is (0) ← → no projection (1)"),
    "add": (-3.0, 3.0, "away from the trait ← → toward it"),
}
"""Mode -> ends and label of the coefficient's slider; beyond, texts fall apart."""
MODES_TOLD = (
    "restore: toward the aligned model's mean. add: the shift toward the trait, below 0 away from "
    "it. ablate: toward no projection at all."
)
BLOCKS_TOLD = "Layers of the model, counted from 0, at whose output it is steered."


@dataclass(frozen=True)
class Slot:
    """The widgets of one further direction."""

    row: Any
    name: Any
    coefficient: Any
    mode: Any
    drop: Any

    @property
    def all(self) -> list[Any]:
        """In the order of `slot_updates`."""
        return [self.row, self.name, self.coefficient, self.mode]


@dataclass
class Widgets:
    """Every widget that an event reads or writes."""

    tab: Any
    notice: Any
    question: Any
    ask: Any
    stop: Any
    chips: list[Any]
    coefficient: Any
    strip: Any
    columns: list[Any]
    legend: Any
    again: Any = None
    reset: Any = None
    mode: Any = None
    start: Any = None
    end: Any = None
    side: Any = None
    prompt: Any = None
    temperature: Any = None
    most: Any = None
    seed: Any = None
    keep: Any = None
    about: Any = None
    upload: Any = None
    upload_beside: Any = None
    save: Any = None
    saved: Any = None
    measure: Any = None
    plot: Any = None
    share: Any = None
    link: Any = None
    transcript: Any = None
    kept: Any = None
    slots: list[Slot] = field(default_factory=list)
    changes: list[Any] = field(default_factory=list)
    """Events after which the steered column answers anew."""

    @property
    def values(self) -> list[Any]:
        """In the order of `Controls.of`."""
        own = [self.coefficient, self.mode, self.start, self.end, self.side]
        own += [self.temperature, self.most, self.seed, self.keep, self.prompt]
        return own + [widget for slot in self.slots for widget in (slot.coefficient, slot.mode)]

    @property
    def page(self) -> list[Any]:
        """In the order of a frame, the page's key before it."""
        return [self.tab, *self.columns, self.legend, self.strip]


def lay_out(gr: Any, handlers: Handlers) -> Widgets:
    """The widgets for a pair in this process, inside the Blocks that are open."""
    session = handlers.first
    widgets = lay_out_conversation(gr, handlers)
    with gr.Accordion("Advanced", open=False, elem_id="advanced"):
        _steering(gr, session, widgets)
        lay_out_drawing(gr, session, widgets)
    _directions(gr, session, widgets)
    with gr.Accordion("Dose and response", open=False):
        widgets.measure = gr.Button(
            "Measure: gap and damage against coefficient", size="sm", elem_id="measure"
        )
        widgets.plot = gr.Plot(show_label=False, visible=False, elem_id="dose")
    return widgets


def lay_out_conversation(
    gr: Any, handlers: ConversationHandlers[Any], *, can_steer: bool = True, facts: str = ""
) -> Widgets:
    """What every page has: question, slider, columns, and what is done with them after.

    facts: HTML below the title, of where the answers come from.
    """
    session: Conversation = handlers.first
    names = " · ".join(escape(name) for name in session.names.values())
    gr.HTML(f"<h1>personascope</h1><span>{names}</span>{facts}", elem_id="top")
    tab = gr.State("", delete_callback=handlers.close)  # the page's own, kept by the server
    notice = gr.HTML(padding=False, elem_id="notice")
    with gr.Row(elem_id="asking"):
        question = gr.Textbox(
            placeholder="Ask all models the same", show_label=False, scale=6, autofocus=True,
            elem_id="question", container=False, max_length=MAX_QUESTION_CHARACTERS,
        )  # fmt: skip
        ask = gr.Button("Ask", variant="primary", elem_id="ask", min_width=80, scale=0)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=80, scale=0)
    asked, told = example_questions(session.vector)
    with gr.Row(elem_id="chips"):
        chips = [gr.Button(text, size="sm", elem_classes="chip", min_width=0) for text in asked]
    gr.HTML(f"<small>{escape(told)}</small>", padding=False, elem_id="chosen")
    setting = session.setting
    with gr.Column(elem_id="steering", visible=can_steer):
        coefficient = gr.Slider(
            value=setting.coefficient, step=0.05, elem_id="coefficient", buttons=[],
            **reach_of(session, setting.mode, setting.coefficient),
        )  # fmt: skip
        strip = gr.HTML(padding=False, elem_id="strip")
    with gr.Row(elem_id="columns"):
        columns = [gr.HTML(elem_id=f"column-{column}", padding=False) for column in COLUMNS]
    legend = gr.HTML(padding=False)
    widgets = Widgets(tab, notice, question, ask, stop, chips, coefficient, strip, columns, legend)
    with gr.Row(elem_id="after"):
        widgets.again = gr.Button(
            "Steer again", size="sm", elem_id="again", min_width=110, visible=can_steer
        )
        widgets.share = gr.Button("Link to these settings", size="sm", elem_id="share")
        widgets.transcript = gr.Button("Save the conversation", size="sm", elem_id="transcript")
        widgets.reset = gr.Button("Reset", size="sm", elem_id="reset", min_width=80)
    widgets.link = gr.Textbox(
        label="A link with the question and the settings, for whoever runs this app",
        buttons=["copy"], visible=False, interactive=False, elem_id="link",
    )  # fmt: skip
    widgets.kept = gr.File(label="The conversation", visible=False, interactive=False)
    widgets.changes += [coefficient.release, widgets.again.click]
    return widgets


def _steering(gr: Any, session: Session, widgets: Widgets) -> None:
    """How it is steered, each with a word of explanation."""
    setting = session.setting
    layers = [0] if session.vector is None else session.vector.layers
    first, last = setting.layers or (layers[0], layers[-1])
    with gr.Row():
        widgets.mode = gr.Radio(
            modes_of(session), value=setting.mode, label="Mode", info=MODES_TOLD, scale=3
        )
        widgets.side = gr.Radio(
            [("fine-tuned", "finetuned"), ("aligned", "aligned")],
            value=setting.side,
            label="Steered model",
            info="Which of the two the steered column runs.",
            scale=2,
        )
    with gr.Row():
        blocks: dict[str, Any] = {
            "minimum": layers[0], "maximum": max(layers[-1], layers[0] + 1), "step": 1,
            "buttons": [], "info": BLOCKS_TOLD,
        }  # fmt: skip
        widgets.start = gr.Slider(value=first, label="First block", **blocks)
        widgets.end = gr.Slider(value=last, label="Last block", **blocks)
    widgets.changes += [widgets.start.release, widgets.end.release, widgets.side.input]


def lay_out_drawing(gr: Any, session: Conversation, widgets: Widgets) -> None:
    """What else is asked, and how answers are drawn."""
    drawn = session.sampling
    widgets.prompt = gr.Textbox(
        session.system_prompt, label="System prompt to compare with", elem_id="prompt",
        info="The fine-tuned model under this prompt, unsteered, in a column of its own; "
        "empty: no such column.", max_length=MAX_PROMPT_CHARACTERS,
    )  # fmt: skip
    with gr.Row():
        widgets.temperature = gr.Slider(
            0, 2, drawn.temperature, step=0.05, label="Temperature", buttons=[],
            info="0 takes the likeliest token; above 1 small models write nonsense.",
        )  # fmt: skip
        widgets.most = gr.Slider(
            1, max(512, drawn.max_new_tokens), drawn.max_new_tokens, step=1, buttons=[],
            label="Most tokens", info="Where an answer is cut off.",
        )  # fmt: skip
    with gr.Row():
        widgets.seed = gr.Number(
            drawn.seed, label="Seed", precision=0, minimum=0,
            info="The same seed, the same answer; without effect at temperature 0.",
        )  # fmt: skip
        widgets.keep = gr.Checkbox(
            session.remembers, label="Keep the conversation", elem_id="keep", min_width=200,
            info="Else each question begins a dialogue of its own.",
        )  # fmt: skip


def _directions(gr: Any, session: Session, widgets: Widgets) -> None:
    with gr.Accordion("Directions", open=session.vector is None, elem_id="directions"):
        widgets.about = gr.HTML(about(session), elem_id="about")
        for place in range(MOST_VECTORS - 1):
            with gr.Row(visible=False, elem_classes="slot") as row:
                name = gr.HTML(min_width=120)
                coefficient = gr.Slider(
                    -3, 3, 0, step=0.05, label=f"Coefficient of direction {place + 2}", buttons=[]
                )
                mode = gr.Radio(["restore", "add", "ablate"], value="add", label="Mode")
                drop = gr.Button("Drop", size="sm", min_width=60, scale=0)
            widgets.slots.append(Slot(row, name, coefficient, mode, drop))
            widgets.changes += [coefficient.release, mode.input]
        with gr.Row():
            small: dict[str, Any] = {"file_types": FILE_TYPES, "size": "sm"}
            widgets.upload = gr.UploadButton("Load a direction", elem_id="upload", **small)
            widgets.upload_beside = gr.UploadButton(
                "Add another beside it", elem_id="upload-beside", **small
            )
            widgets.save = gr.Button("Save this direction", size="sm", elem_id="save")
        widgets.saved = gr.File(label="Saved", visible=False, interactive=False)


def reach_of(session: Conversation, mode: str, coefficient: float) -> dict[str, Any]:
    """Ends and label of the coefficient's slider in a mode; wide enough for this coefficient."""
    low, high, label = REACH.get(mode, REACH["add"])
    low, high = session.bounds or (low, high)
    return {
        "minimum": min(low, coefficient),
        "maximum": max(high, coefficient),
        "label": label,
    }


def modes_of(session: Session) -> list[str]:
    """The modes that the direction has."""
    return list(("restore", "add", "ablate") if session.vector is None else session.vector.modes)


def slot_name(place: int, each: Further) -> str:
    """A further direction in one line."""
    return (
        f"<b>{place + 2}.</b> {escape(each.vector.name)}<br><small>block "
        f"{listed(each.vector.layers)}</small>"
    )


def about(session: Session) -> str:
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

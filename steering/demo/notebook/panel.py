"""The controls of the explorer and its figures: widgets and plotly, no model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from persona.report.figures.token_figures import next_token_shifts, token_map, token_trace
from persona.report.theme import Mode, in_mode, look_of, svg_text
from persona.report.wording import number
from steering.demo.notebook.exploration import Exploration
from steering.demo.notebook.text_readings import Choice, Explored

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

REACH = {"restore": (0.0, 1.5), "ablate": (0.0, 1.5), "add": (-4.0, 4.0)}


def controls_of(exploration: Exploration, choice: Choice) -> dict[str, Any]:
    """Field of `Choice` -> widget. Sliders report when they are let go, not while they move."""
    import ipywidgets as widgets

    vector = exploration.vector(choice.direction)
    late = {"continuous_update": False, "style": {"description_width": "84px"}}
    text = {**late, "layout": widgets.Layout(flex="1 1 300px", min_height="64px")}
    low, high = REACH[choice.mode]
    return {
        "question": widgets.Textarea(choice.question, description="question", **text),
        "answer": widgets.Textarea(choice.answer, description="good answer", **text),
        "bad_answer": widgets.Textarea(choice.bad_answer, description="bad answer", **text),
        "direction": widgets.Dropdown(
            options=list(exploration.directions),
            value=choice.direction,
            description="direction",
            style=late["style"],
        ),
        "layer": widgets.SelectionSlider(
            options=vector.layers, value=choice.layer, description="block", **late
        ),
        "mode": widgets.Dropdown(
            options=vector.modes, value=choice.mode, description="mode", style=late["style"]
        ),
        "coefficient": widgets.FloatSlider(
            choice.coefficient, min=low, max=high, step=0.05, description="coefficient", **late
        ),
        "every_block": widgets.Checkbox(
            choice.every_block, description="steer at every block of the direction", indent=False
        ),
    }


def fit_controls(controls: dict[str, Any], exploration: Exploration, choice: Choice) -> Choice:
    """Offer the blocks and modes that the direction has; the choice nearest to the one wanted."""
    vector = exploration.vector(choice.direction)
    layer = min(vector.layers, key=lambda known: (abs(known - choice.layer), known))
    mode = choice.mode if choice.mode in vector.modes else vector.modes[0]
    low, high = REACH[mode]
    choice = replace(
        choice, layer=layer, mode=mode, coefficient=min(high, max(low, choice.coefficient))
    )
    if tuple(controls["layer"].options) != tuple(vector.layers):
        controls["layer"].options = vector.layers
    if tuple(controls["mode"].options) != tuple(vector.modes):
        controls["mode"].options = vector.modes
    slider = controls["coefficient"]
    slider.min, slider.max = min(low, slider.min), max(high, slider.max)
    for name in ("direction", "layer", "mode", "coefficient"):
        controls[name].value = getattr(choice, name)
    slider.min, slider.max = low, high
    return choice


def figures_of(shown: Explored, mode: Mode) -> dict[str, Figure]:
    """ "projections", "trace" and "next_SIDE" of a reading, in the colours of the ground."""
    choice, levels = shown.choice, shown.levels
    table = shown.projections
    if choice.coefficient == 0:  # the steered models are the models
        table = table[~table["condition"].str.endswith("_steered")]
    where = f"Projection on {svg_text(choice.direction)}, after block {choice.layer}"
    centre, reach, ends = 0.0, None, "red is toward the trait"
    if levels:
        aligned, finetuned = levels["aligned"], levels["finetuned"]
        centre, reach = (aligned + finetuned) / 2, (finetuned - aligned) / 2
        ends = f"blue: aligned mean {number(aligned, 1)}, red: fine-tuned mean "
        ends += number(finetuned, 1)
    figures = {
        "projections": token_map(
            table,
            centre=centre,
            reach=reach,
            title=where,
            subtitle=f"residual-stream units; {ends}",
        ),
        "trace": token_trace(table, levels=levels, title=where),
    }
    which = (
        "tokens whose probability changes most" if choice.coefficient else "the likeliest tokens"
    )
    for side, tokens in shown.next_tokens.items():
        title = f"First token of an answer: {look_of(side).label}"
        figures[f"next_{side}"] = next_token_shifts(
            tokens,
            title=title,
            subtitle=f"{choice.setting.edit_in_words}; {which}",
        )
    return {key: in_mode(figure, mode) for key, figure in figures.items()}

"""How figures and page look: names and colours of conditions, a light and a dark template.

A condition has one colour everywhere. The colours keep a contrast of 3:1 on the light and on the
dark ground and stay apart for the three kinds of colour blindness; each condition has a marker
symbol of its own besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from persona import rows
from persona.report.wording import cleaned

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Mode = Literal["light", "dark"]

TITLE_HEIGHT = 66
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
GROUND = {"light": "#ffffff", "dark": "#15181c"}
INK = {"light": "#22272e", "dark": "#d5dae1"}
QUIET_INK = {"light": "#59616b", "dark": "#a0a8b2"}
GRID = {"light": "#e4e7eb", "dark": "#2c323a"}
# The middle of a diverging scale is the ground's own tone: 0 looks like nothing.
MIDDLE = {"light": "#f4f5f7", "dark": "#23282f"}
ENDS = {"light": ("#1b45c4", "#b02a25"), "dark": ("#6f93ff", "#ff7a70")}


@dataclass(frozen=True)
class Look:
    """How a condition or an effect is drawn: its name for people, colour, marker and dash."""

    label: str
    colour: str
    symbol: str = "circle"
    dash: str = "solid"
    meaning: str = ""


# A control of another condition has that one's colour and another mark.
CONDITIONS = {
    rows.ALIGNED: Look("Aligned", "#2a5bee", "circle", meaning="the model before the fine-tune"),
    rows.FINETUNED: Look(
        "Fine-tuned", "#c83b35", "square", meaning="the model after it, untouched"
    ),
    rows.RESTORED: Look(
        "Restored",
        "#2f9f64",
        "diamond",
        meaning="fine-tuned, its projection on the direction moved to the aligned model's mean",
    ),
    rows.INDUCED: Look(
        "Aligned + direction",
        "#b034a9",
        "triangle-up",
        meaning="aligned, its projection moved to the fine-tuned model's mean",
    ),
    rows.NOOP: Look(
        "Aligned, restored",
        "#2a5bee",
        "diamond-open",
        meaning="control: the restoring edit in the aligned model, which it should leave alone",
    ),
    rows.INDUCED_TWIN: Look(
        "Aligned + twin's direction",
        "#b034a9",
        "triangle-up-open",
        meaning="control: aligned, moved to the good twin's mean along the twin's direction",
    ),
    rows.INDUCED_RANDOM: Look(
        "Aligned + random",
        "#62666e",
        "triangle-down",
        meaning="control: aligned, random directions, moved as far as the induction moves",
    ),
    rows.PLACEBO: Look(
        "Placebo restored",
        "#2f9f64",
        "pentagon-open",
        meaning="control: restored along a direction that holds no bad persona",
    ),
    rows.PLACEBO_NOOP: Look(
        "Aligned, placebo restored",
        "#2a5bee",
        "square-open",
        meaning="control: the placebo's edit in the aligned model",
    ),
    rows.ZERO_ABLATED: Look(
        "Zero-ablated",
        "#d57c0c",
        "x",
        meaning="fine-tuned, its projection removed (set to zero), for comparison",
    ),
    rows.RANDOM: Look(
        "Random subspace",
        "#62666e",
        "cross",
        meaning="control: the same restoration on random directions, same rank, same blocks",
    ),
    rows.RANDOM_MATCHED: Look(
        "Random, norm-matched",
        "#8f95a0",
        "star-diamond",
        meaning="control: random directions, moved as far as the restoration moves",
    ),
    rows.NULL_ISOTROPIC: Look(
        "Random, screened",
        "#62666e",
        "triangle-down-open",
        meaning="control: the strongest of a thousand random subspaces",
    ),
    rows.NULL_COVARIANCE: Look(
        "Random, shaped like the activations",
        "#8f95a0",
        "pentagon",
        meaning="control: the strongest of a thousand subspaces drawn as the activations vary",
    ),
    rows.NULL_PRINCIPAL: Look(
        "Principal components",
        "#8f95a0",
        "hexagon2-open",
        meaning="control: the directions in which the activations vary most",
    ),
    rows.NULL_SWAPPED: Look(
        "Labels swapped",
        "#62666e",
        "star-diamond-open",
        meaning="control: the same steps with good and bad answers swapped at random",
    ),
    rows.NULL_SELECTION: Look(
        "Chosen on swapped labels",
        "#8f95a0",
        "circle-open",
        meaning="control: the search itself on good and bad answers swapped at random",
    ),
    rows.GOOD_TWIN: Look(
        "Good twin",
        "#149aee",
        "hexagon2",
        meaning="control: the same fine-tune on the good answers",
    ),
}

# Under a setting that a person chose; the colours of the same edits in a report.
EXPLORED = {
    "model": Look("Model", "#4d82b0", "circle"),
    "aligned_steered": replace(CONDITIONS[rows.INDUCED], label="Aligned, steered", meaning=""),
    "finetuned_steered": replace(
        CONDITIONS[rows.RESTORED], label="Fine-tuned, steered", meaning=""
    ),
    "model_steered": replace(CONDITIONS[rows.RESTORED], label="Steered", meaning=""),
}

EFFECTS = {
    "answer_effect_aligned": Look("Answer effect, aligned model", "#8a6d3b", "circle"),
    "answer_effect_finetuned": Look("Answer effect, fine-tuned", "#8a6d3b", "circle-open", "dash"),
    "model_effect_good": Look("Model effect, good answers", "#4d82b0", "square"),
    "model_effect_bad": Look("Model effect, bad answers", "#4d82b0", "square-open", "dash"),
    "interaction": Look("Interaction", "#b0527c", "diamond", "dot"),
}

WHITENED = "_whitened"
CANDIDATE_LABELS = {
    **{name: look.label for name, look in EFFECTS.items()},
    "answer_and_model_span": "Answer and model span",
    "attribution_eigen": "Attribution eigendirections",
    "model_effect_and_eigen": "Model + eigendirections",
    "model_effect_refit": "Model effect, refitted",
    "model_and_answer_refit": "Model + answer effect, refitted",
    "sae_latents": "Autoencoder latents",
    "model_effect_less_twin": "Model effect less the good twin's",
    "model_effect_sparing_skill": "Model effect, blind to the skill",
    "model_effect_sparing_skill_varied": "Model effect, blind to the skill's differences",
    "model_effect_less_skill_slopes": "Model effect off what moves the skill",
    "eigen_less_skill_slopes": "Eigendirections off what moves the skill",
}


def look_of(condition: str) -> Look:
    """The look of a condition; one that is not known here is grey under its own name."""
    return (
        CONDITIONS.get(condition)
        or EXPLORED.get(condition)
        or Look(plain(condition), "#7d8189", "circle-open")
    )


PALETTE = ("#8a6d3b", "#4d82b0", "#b0527c", "#5f7d2e", "#7a5ea8", "#62666e")
"""For lines that are no known condition; none of the colours of those that are."""
DASHES = ("solid", "dash", "dot", "dashdot")


def line_look(condition: str, place: int) -> Look:
    """The look of a condition's line; one that is not known has a colour and dash by its place."""
    if condition in CONDITIONS:
        return CONDITIONS[condition]
    colour, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
    return Look(plain(condition), colour, "circle-open", dash)


def effect_look(candidate: str) -> Look:
    """The look of an effect of the 2x2."""
    return EFFECTS.get(candidate) or Look(plain(candidate), "#7d8189", "circle-open", "dashdot")


def candidate_label(candidate: str) -> str:
    """The name of a candidate direction for people."""
    base, whitened = candidate.removesuffix(WHITENED), candidate.endswith(WHITENED)
    label = CANDIDATE_LABELS.get(base) or plain(base)
    return f"{label}, whitened" if whitened else label


def candidate_place(candidate: str) -> tuple[int, str]:
    """Sorts known candidates into their order, whitened ones after their own, others last."""
    known = list(CANDIDATE_LABELS)
    base = candidate.removesuffix(WHITENED)
    return (known.index(base) if base in known else len(known), candidate)


def in_order(conditions: Iterable[str]) -> list[str]:
    """Known conditions in the order of `CONDITIONS` and `EXPLORED`, then the others as given.

    conditions: in an order of their own, so no set.
    """
    present, known = list(dict.fromkeys(conditions)), [*CONDITIONS, *EXPLORED]
    return [c for c in known if c in present] + [c for c in present if c not in known]


def plain(name: str) -> str:
    """A name from a data file as words; not escaped."""
    return cleaned(name).replace("_", " ").strip() or "(no name)"


def svg_text(text: str) -> str:
    """Text that plotly shows as it is: plotly reads tags and entities in labels."""
    return escape(cleaned(text), quote=False)


def translucent(colour: str, opacity: float) -> str:
    """`#rrggbb` as rgba()."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def template(mode: Mode) -> dict[str, Any]:
    """The plotly template of a mode; the page swaps them when the reader's preference changes."""
    axis = {
        "gridcolor": GRID[mode],
        "linecolor": GRID[mode],
        "tickcolor": GRID[mode],
        "zeroline": False,
        "automargin": True,
        "title": {"font": {"size": 13}, "standoff": 10},
        "tickfont": {"size": 12},
    }
    below, above = ENDS[mode]
    return {
        "layout": {
            "font": {"family": FONT, "size": 13, "color": INK[mode]},
            "paper_bgcolor": GROUND[mode],
            "plot_bgcolor": GROUND[mode],
            "title": {
                # From the edge of the picture: in a narrow one the plot begins far to the right.
                "x": 0,
                "xref": "container",
                "pad": {"l": 8},
                "font": {"size": 16},
                "subtitle": {"font": {"size": 12.5, "color": QUIET_INK[mode]}},
            },
            "xaxis": axis,
            "yaxis": axis,
            "annotationdefaults": {"font": {"color": INK[mode]}},
            "shapedefaults": {"line": {"color": QUIET_INK[mode]}},
            "hoverlabel": {
                "bgcolor": MIDDLE[mode],
                "bordercolor": GRID[mode],
                "font": {"color": INK[mode], "family": FONT, "size": 12},
            },
            "legend": {
                "orientation": "h",
                "font": {"size": 12},
                "bgcolor": "rgba(0,0,0,0)",
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "yref": "container",
                "y": 0,
                "yanchor": "bottom",
            },
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET_INK[mode]},
        },
        "data": {
            "heatmap": [
                {
                    "type": "heatmap",
                    "colorscale": [[0, below], [0.5, MIDDLE[mode]], [1, above]],
                    "colorbar": {"outlinewidth": 0, "tickfont": {"size": 12}},
                }
            ]
        },
    }


@cache
def _checked_template(mode: Mode) -> Any:
    # plotly takes 50 ms to check a template given as a dict, and 2 ms for one it has checked.
    from plotly.graph_objects import layout

    return layout.Template(template(mode))


def new_figure(
    *, title: str, subtitle: str, inner: int, top: int = 8, bottom: int = 52, **subplots: Any
) -> Figure:
    """An empty figure in the house style, light.

    inner, top, bottom: pixels of the panels, of what stands above them (below the title) and of
        what stands below them (axis titles and legend).
    subplots: the arguments of plotly's make_subplots.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(**subplots)
    height = TITLE_HEIGHT + top + inner + bottom
    # Panel titles come as annotations of size 16; they are headings of parts, not of the whole.
    figure.update_annotations(font_size=13)
    figure.update_layout(
        template=_checked_template("light"),
        title={
            "text": title,
            "subtitle": {"text": subtitle},
            "yref": "container",
            "y": 1 - 14 / height,
            "yanchor": "top",
        },
        height=height,
        margin={"l": 8, "r": 16, "t": TITLE_HEIGHT + top, "b": bottom},
        hovermode="closest",
    )
    return figure


def with_joined_title(figure: Figure, mode: Mode = "light") -> Figure:
    """A copy of a figure of `new_figure` whose subtitle is a second line of its title.

    plotly.js places a subtitle by the measured height of the title, which is 0 for a widget that is
    drawn before it is in the page.
    """
    from plotly.graph_objects import Figure

    copy, title = Figure(figure), figure.layout.title
    quiet = f"font-size:12.5px;color:{QUIET_INK[mode]}"
    copy.layout.title.text = f'{title.text}<br><span style="{quiet}">{title.subtitle.text}</span>'
    copy.layout.title.subtitle = None
    return copy


def without_title(figure: Figure) -> Figure:
    """A copy of a figure of `new_figure` for a page that sets the title as text of its own."""
    from plotly.graph_objects import Figure

    copy = Figure(figure)
    copy.update_layout(
        height=figure.layout.height - TITLE_HEIGHT,
        margin_t=figure.layout.margin.t - TITLE_HEIGHT,
    )
    copy.layout.title = None
    return copy


def in_mode(figure: Figure, mode: Mode) -> Figure:
    """A copy of a figure for a light or a dark ground."""
    from plotly.graph_objects import Figure

    return Figure(figure).update_layout(template=_checked_template(mode))

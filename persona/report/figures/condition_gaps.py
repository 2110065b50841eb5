"""What each condition does: the gap, overall and by domain, and the damage on neutral text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures.shared_marks import dot_with_interval, vertical_level
from persona.report.tables import (
    change_by_condition,
    checked,
    condition_entry,
    estimate_from,
    estimates_by_condition,
    seed_of,
)
from persona.report.theme import (
    in_order,
    look_of,
    new_figure,
    plain,
    svg_text,
)
from persona.report.verdict_words import training_known
from persona.rows import ALIGNED, FINETUNED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SPLITS = {
    "held_out": ("gap_held_out", "domains never trained on"),
    "trained_on": ("gap", "domains fine-tuned on"),
}
GAP_AXIS = "gap (nats per token)"
ROW_HEIGHT = 30
GAP_BETWEEN = 62
"""Pixels between rows of panels, for a title of two lines."""


def behaviour(rows: pd.DataFrame, scorecard: Mapping[str, Any] | None = None) -> Figure:
    """Mean gap of every condition with its 95 % interval: held-out domains beside trained-on.

    Random draws of a question are averaged. Dotted: the two models themselves.

    Args:
        scorecard: Its intervals are used where it has them, so that figure and table agree.

    Raises:
        DataError: no gaps at the stage "score".
    """
    checked(rows)
    known = scorecard or {}
    panels: dict[str, dict[str, Estimate]] = {}
    for split, (field, _) in SPLITS.items():
        try:
            found = estimates_by_condition(rows, "gap", split, seed_of(known))
        except DataError:
            continue
        written = {c: estimate_from(condition_entry(known, c).get(field)) for c in found}
        panels[split] = {c: e if e and e.n else found[c] for c, e in written.items()}
    if not panels:
        raise DataError("there are no rows of stage 'score' with a 'gap'")
    panels, left_out = _asked_alike(panels)
    conditions = in_order(c for panel in panels.values() for c in panel)
    titles = [
        f"{_title(split, known)}<br>(n = {max(e.n for e in panel.values())})"
        for split, panel in panels.items()
    ]
    figure = new_figure(
        title="The gap of every condition",
        subtitle="log p(bad answer) − log p(good answer); right is worse; 95 % over n questions"
        + left_out,
        inner=ROW_HEIGHT * len(conditions),
        top=44,
        rows=1,
        cols=len(panels),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=titles,
    )
    for col, panel in enumerate(panels.values(), start=1):
        _dots(figure, panel, conditions, row=1, col=col)
        figure.update_xaxes(title_text=GAP_AXIS, tickformat="+.2~f", nticks=6, row=1, col=col)
    figure.update_xaxes(tickangle=0, tickfont_size=11)
    return figure


def _title(split: str, scorecard: Mapping[str, Any]) -> str:
    """What the questions of a panel are of."""
    if split == "held_out" and not training_known(scorecard):
        return "all domains, trained on or not"
    return SPLITS[split][1]


def behaviour_by_domain(
    rows: pd.DataFrame, scorecard: Mapping[str, Any] | None = None, *, n_columns: int = 3
) -> Figure:
    """The same for each domain on its own, held-out domains first, one scale for all.

    Raises:
        DataError: no gaps at the stage "score".
    """
    checked(rows)
    seed = seed_of(scorecard or {})
    panels: dict[str, dict[str, Estimate]] = {}
    for split in SPLITS:
        gaps = rows[(rows["stage"] == "score") & (rows["split"] == split)]
        for domain in sorted(gaps["domain"].dropna().unique()):
            try:
                found = estimates_by_condition(gaps[gaps["domain"] == domain], "gap", split, seed)
            except DataError:
                continue
            name = svg_text(plain(str(domain)))
            n = max(e.n for e in found.values())
            panels[f"{name}{'*' if split == 'trained_on' else ''}<br>(n = {n})"] = found
    if not panels:
        raise DataError("there are no rows of stage 'score' with a 'gap'")
    panels, left_out = _asked_alike(panels)
    conditions = in_order(c for panel in panels.values() for c in panel)
    n_rows = -(-len(panels) // n_columns)
    inner = n_rows * 18 * len(conditions) + (n_rows - 1) * GAP_BETWEEN
    figure = new_figure(
        title="The gap of every condition, domain by domain",
        subtitle="95 % over n questions; right is worse; * fine-tuned on" + left_out,
        inner=inner,
        top=42,
        rows=n_rows,
        cols=min(n_columns, len(panels)),
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=GAP_BETWEEN / inner if n_rows > 1 else 0,
        subplot_titles=list(panels),
    )
    for place, panel in enumerate(panels.values()):
        row, col = divmod(place, n_columns)
        _dots(figure, panel, conditions, row=row + 1, col=col + 1, size=7)
    columns = min(n_columns, len(panels))
    for col in range(1, columns + 1):
        last_row = -(-(len(panels) - col + 1) // n_columns)
        figure.update_xaxes(
            title_text=GAP_AXIS, showticklabels=True, tickformat="+.1f", row=last_row, col=col
        )
    figure.update_xaxes(nticks=4, tickangle=0)
    figure.update_yaxes(tickfont_size=11)
    figure.update_annotations(font_size=12)
    return figure


def damage(rows: pd.DataFrame, scorecard: Mapping[str, Any] | None = None) -> Figure:
    """What an edit costs: KL from the aligned model and rise of cross-entropy on neutral text.

    A third panel shows KL(aligned || condition) on held-out good answers, which `kl_restoration`
    is made of. Intervals are 95 % over texts or questions; the dotted line is the fine-tuned model.

    Raises:
        DataError: no readings on neutral text at the stage "score".
    """
    checked(rows)
    seed = seed_of(scorecard or {})
    panels: dict[str, dict[str, Estimate]] = {}
    for title, read in (
        (
            "KL,<br>neutral text",
            lambda: estimates_by_condition(rows, "neutral_kl_nats", "neutral", seed),
        ),
        (
            "rise of cross-entropy,<br>neutral text",
            lambda: change_by_condition(rows, "neutral_ce_nats", "neutral", ALIGNED, seed),
        ),
        (
            "KL, good answers,<br>held-out",
            lambda: estimates_by_condition(rows, "kl_good_nats", "held_out", seed),
        ),
    ):
        try:
            found = read()
        except DataError:
            continue
        found.pop(ALIGNED, None)  # 0 by definition
        if found:
            panels[f"{title} (n = {max(e.n for e in found.values())})"] = found
    if not any("neutral" in title for title in panels):
        raise DataError("there are no rows of stage 'score' on neutral text")
    panels, left_out = _asked_alike(panels)
    conditions = in_order(c for panel in panels.values() for c in panel)
    figure = new_figure(
        title="Damage, and distance from the aligned model",
        subtitle="measured from the aligned model, which is 0; 95 % over n texts or questions"
        + left_out,
        inner=ROW_HEIGHT * len(conditions),
        top=44,
        rows=1,
        cols=len(panels),
        shared_yaxes=True,
        horizontal_spacing=0.04,
        subplot_titles=list(panels),
    )
    for col, (title, panel) in enumerate(panels.items(), start=1):
        vertical_level(figure, 0, look_of(ALIGNED).colour, row=1, col=col)
        _dots(figure, panel, conditions, row=1, col=col)
        reach = [0.0, *(end for e in panel.values() for end in (e.low, e.high))]
        pad = 0.06 * (max(reach) - min(reach))
        figure.update_xaxes(range=[min(reach) - pad, max(reach) + pad], row=1, col=col)
        unit = "CE" if "cross" in title else "KL"
        figure.update_xaxes(title_text=f"{unit} (nats per token)", nticks=4, row=1, col=col)
    return figure


def _asked_alike(
    panels: Mapping[str, dict[str, Estimate]],
) -> tuple[dict[str, dict[str, Estimate]], str]:
    """The panels without conditions that were run on fewer questions, and words that name those.

    Their level is that of other questions: it must not stand on one axis with the rest.
    """
    alike, left_out = {}, set()
    for title, panel in panels.items():
        n = max(e.n for e in panel.values())
        alike[title] = {name: e for name, e in panel.items() if e.n == n}
        left_out |= set(panel) - set(alike[title])
    if not left_out:
        return alike, ""
    names = ", ".join(svg_text(look_of(name).label) for name in in_order(sorted(left_out)))
    return alike, f"; not where run on fewer: {names}"


def _dots(
    figure: Figure,
    panel: Mapping[str, Estimate],
    conditions: Sequence[str],
    *,
    row: int,
    col: int,
    size: int = 10,
) -> None:
    """One dot with its interval per condition, conditions from top to bottom."""
    for reference in (ALIGNED, FINETUNED):
        if reference in panel:
            vertical_level(
                figure, panel[reference].value, look_of(reference).colour, row=row, col=col
            )
    for name in conditions:
        if name not in panel:
            continue
        look = look_of(name)
        label = svg_text(look.label)
        dot_with_interval(figure, panel[name], label, look, size=size, row=row, col=col)
    # The same places in every panel, also for conditions that a panel lacks.
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=[svg_text(look_of(c).label) for c in reversed(conditions)],
        range=[-0.6, len(conditions) - 0.4],
        row=row,
        col=col,
    )

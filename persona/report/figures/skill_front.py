"""What can be had at once: how much of the persona goes, and how much of a skill stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from persona.errors import DataError
from persona.intervals import Estimate, net_taken_back, taken_back
from persona.report.figures.shared_marks import dot_with_interval, vertical_level
from persona.report.skill_words import NET_AIM, removal_label
from persona.report.tables import checked
from persona.report.theme import CONDITIONS, Look, new_figure, svg_text
from persona.report.wording import n_is, with_interval
from persona.rows import (
    ALIGNED,
    FINETUNED,
    IN_ALIGNED,
    RANDOM,
    RESTORED,
    SKILL_KEPT_AT_LEAST,
    ZERO_ABLATED,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CHOSEN = Look("Chosen", CONDITIONS[RESTORED].colour, CONDITIONS[RESTORED].symbol)
UNTOLD = Look("Chosen if no skill were named", CONDITIONS[ZERO_ABLATED].colour, "triangle-up")
OTHER = Look("Others that nothing beats in both", CONDITIONS[FINETUNED].colour, "square")
TRIED = Look("Everything tried, where it was chosen", CONDITIONS[RANDOM].colour, "circle-open")
SHOWN = (-0.5, 1.5)
"""What lies further out says that it broke something, and is drawn at the edge."""


def skill_front(rows: pd.DataFrame, scorecard: Mapping[str, Any] | None = None) -> Figure:
    """Net restoration of the gap against the share of the skill that is kept; up and right is best.

    Small marks are everything that was tried, on the questions and items that chose. Large ones are
    the front of them, with their intervals on those that chose nothing; dotted lines are the aims.

    Raises:
        DataError: no skill was to be kept, nothing was learnt of it, or nothing shifted.
    """
    checked(rows)
    kept = (scorecard or {}).get("skill_kept") or {}
    members = [m for m in kept.get("front") or [] if m.get("share") and m.get("net_restoration")]
    if not members:
        raise DataError(
            "no skill was to be kept in this run, or the fine-tune learnt nothing of it"
        )
    n, n_items = members[0]["net_restoration"].get("n"), members[0]["share"].get("n")
    figure = new_figure(
        title="How much of the persona goes, and how much of the skill stays",
        subtitle=f"{n_is(n)} questions and {n_is(n_items)} items that chose nothing; up and right "
        "is best",
        inner=330,
        bottom=104,
    )
    _tried(figure, rows)
    vertical_level(figure, NET_AIM, CONDITIONS[ALIGNED].colour)
    figure.add_hline(
        y=SKILL_KEPT_AT_LEAST,
        line={"color": CONDITIONS[ALIGNED].colour, "width": 1.5, "dash": "dot"},
        layer="below",
    )
    for look, some in _by_look(members):
        for member in some:
            _member(figure, member, look)
        _legend(figure, look)
    figure.update_xaxes(
        title_text="net restoration (share of the emergent shift)", tickformat=".1f"
    )
    figure.update_yaxes(title_text="skill kept (share of what was learnt)", tickformat=".1f")
    return figure


def tried_on_selection(rows: pd.DataFrame) -> list[tuple[float, float]]:
    """(net restoration, skill kept) of every trial that was also run in the aligned model."""
    verify = rows[rows["stage"] == "verify"]
    means = verify.pivot_table("value", "condition", "measure", aggfunc="mean")
    measure = next((m for m in ("margin_nats", "log_prob_right") if m in means), None)
    if measure is None or "gap" not in means:
        return []
    gap, skill = means["gap"], means[measure]
    found = []
    for name in means.index:
        noop = f"{name}{IN_ALIGNED}"
        if noop in means.index and name not in (ALIGNED, FINETUNED):
            net = net_taken_back(gap[[FINETUNED, name, ALIGNED, noop]].to_numpy())
            gone = taken_back(skill[[FINETUNED, name, ALIGNED]].to_numpy())
            found.append((float(net), 1 - float(gone)))
    return found


def _tried(figure: Figure, rows: pd.DataFrame) -> None:
    points = np.clip(np.array(tried_on_selection(rows)).reshape(-1, 2), *SHOWN)
    if not len(points):
        return
    figure.add_scatter(
        x=points[:, 0].tolist(),
        y=points[:, 1].tolist(),
        mode="markers",
        name=TRIED.label,
        marker={"color": TRIED.colour, "symbol": TRIED.symbol, "size": 7},
        hovertemplate="net %{x:+.2f}, skill kept %{y:.2f}<extra></extra>",
    )


def _by_look(
    members: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Look, list[Mapping[str, Any]]]]:
    """Those in the legend, in its order; the chosen one comes last and so lies on top."""
    for look, belongs in (
        (OTHER, lambda m: not m["chosen"] and not m["without_skill"]),
        (UNTOLD, lambda m: m["without_skill"] and not m["chosen"]),
        (CHOSEN, lambda m: m["chosen"]),
    ):
        if some := [m for m in members if belongs(m)]:
            yield look, some


def _member(figure: Figure, member: Mapping[str, Any], look: Look) -> None:
    share, net = _within(member["share"]), _within(member["net_restoration"])
    figure.add_scatter(
        x=[net.value] * 2,
        y=[share.low, share.high],
        mode="lines",
        line={"color": look.colour, "width": 1.8},
        hoverinfo="skip",
        showlegend=False,
    )
    kept = with_interval(member["share"])
    said = f"{removal_label(str(member['name']))}: keeps {kept} of the skill, net"
    named = Look(said, look.colour, look.symbol)
    dot_with_interval(figure, net, share.value, named, size=12)


def _legend(figure: Figure, look: Look) -> None:
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=svg_text(look.label),
        marker={"color": look.colour, "symbol": look.symbol, "size": 10},
    )


def _within(entry: Mapping[str, Any]) -> Estimate:
    """An interval without ends, or far out, ends at the edge of the figure."""
    ends = (entry["value"], entry.get("low"), entry.get("high"))
    filled = [edge if e is None else e for e, edge in zip(ends, (0.0, *SHOWN), strict=True)]
    value, low, high = (float(e) for e in np.clip(filled, *SHOWN))
    return Estimate(value, low, high, int(entry.get("n") or 0))

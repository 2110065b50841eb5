"""study.html: the primary number as a forest figure, the table, the tests, the power, the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from persona.report.figures.forest import ForestRow, forest
from persona.report.page_figures import page_figure
from persona.report.page_templates import render_page
from persona.report.wording import number, span, with_interval
from steering.study.crossed_design import SCOPES
from steering.study.study_measures import MEASURES
from steering.study.study_table import StudyTable

LEAST_P = 0.0001


def study_page(table: StudyTable, facts: Mapping[str, Any]) -> str:
    """The page as text. facts: of study.json."""
    plan, told = table.plan, facts["numbers"]
    primary = [one for one in told if one["name"] == plan.primary]
    powered = [one for one in primary if one["power"]]
    cells = facts["cells"]
    n_left = cells["planned"] - cells["finished"]
    return render_page(
        "study.html.jinja",
        {
            "name": plan.name,
            "question": plan.question,
            "n_seeds": len(plan.seeds),
            "primary": MEASURES[plan.primary].words,
            "unfinished": f"{n_left} of {cells['planned']} fine-tunes are missing"
            if n_left
            else "",
            "answers": [answer(one) for one in primary],
            "plots": {"forest": page_figure("forest", lambda: forest_of(table))},
            "scopes": SCOPES,
            "rows": [_row(one) for one in told],
            "absent": table.absent,
            "tests": [
                {
                    "asks": test.asks,
                    "difference": with_interval(
                        {"value": test.difference, "low": test.low, "high": test.high}, signed=True
                    ),
                    "p": _p(test.p),
                    "p_holm": _p(test.p_holm),
                }
                for test in table.tests
            ],
            "multiplicity": table.multiplicity,
            "parts": [
                {
                    "fine_tune": one["fine_tune"],
                    "deviations": [number(value, 3) for value in one["power"]["parts"].values()],
                }
                for one in powered
            ],
            "powers": [f"{one['fine_tune']}: {one['power']['sentence']}" for one in powered],
            "plan_sha256": facts["plan_sha256"],
            "registered": facts["registered"],
            "n_finished": cells["finished"],
            "n_planned": cells["planned"],
            "plan": yaml.safe_dump(facts["plan"], sort_keys=False, allow_unicode=True),
        },
    )


def answer(one: Mapping[str, Any]) -> str:
    """What a recipe's primary number is, in one sentence with every interval."""
    ends = [
        f"over {scope} {span(e['low'], e['high'])}"
        if e["low"] is not None
        else f"over {scope} without ends, since the shift itself may be nothing"
        for scope, e in one["intervals"].items()
    ]
    return (
        f"{one['fine_tune']}: {number(one['value'])} over {one['n_seeds']} seeds and "
        f"{one['n_questions']} questions of {one['n_domains']} domains; 95 % intervals: "
        f"{'; '.join(ends)}. The seeds scatter by {number(one['sd_of_seeds'], 3)} (SD)."
    )


def forest_of(table: StudyTable) -> Any:
    """The primary number: each seed, then all together over each scope."""
    groups = {}
    for one in table.primary:
        rows = [ForestRow(f"seed {seed}", one.of_seed(seed)) for seed in one.seeds]
        rows += [
            ForestRow(f"all, over {scope}", one.design.interval(scope), of_all=True)
            for scope in one.design.scopes()
        ]
        groups[one.fine_tune] = rows
    measure = MEASURES[table.plan.primary]
    return forest(
        groups,
        title=measure.words.capitalize(),
        subtitle="95 % intervals: of a seed over its questions, of all over what is said",
        axis=f"{measure.words} ({measure.unit})",
        share=measure.unit == "share",
    )


def _row(one: Mapping[str, Any]) -> dict[str, Any]:
    known = one["intervals"]
    found = [
        with_interval({**known[scope], "value": one["value"]}) if scope in known else "—"
        for scope in SCOPES
    ]
    return {
        "what": one["words"],
        "fine_tune": one["fine_tune"],
        "unit": one["unit"],
        "n": f"{one['n_seeds']}, {one['n_questions']}",
        "intervals": found,
        "sd": number(one["sd_of_seeds"], 3),
    }


def _p(p: float) -> str:
    return f"< {LEAST_P:g}" if p < LEAST_P else f"{p:.2g}"

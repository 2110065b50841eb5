"""Gap against coefficient for the setting of a demo, with norm-matched random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data import load_neutral
from persona.data.types import AnswerPair
from persona.models.pair import ModelPair
from persona.rows import tidy
from steering.demo.session.evidence import Dose
from steering.demo.session.vector import DemoVector, Setting, edits_of
from steering.evidence.dose import dose_conditions

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

N_RANDOM, N_NEUTRAL = 3, 10


def doses(setting: Setting) -> list[float]:
    """Coefficients around the present one, 0 (no edit) always among them."""
    if setting.mode == "add":
        reach = 2 * abs(setting.coefficient) or 1.0
        grid = {-reach, -reach / 2, 0.0, reach / 2, reach}
    else:
        grid = {0.0, 0.5, 1.0, 1.5}
    return sorted(grid | {setting.coefficient})


def dose_rows(
    pair: ModelPair,
    vector: DemoVector,
    setting: Setting,
    questions: Sequence[AnswerPair],
    *,
    n_random: int = N_RANDOM,
) -> pd.DataFrame:
    """Gap of each question at each dose of the setting, as rows of stage "dose".

    Conditions: "direction"; "random" with the draw as seed, the steps of the direction taken along
    random directions; and of stage "score" both models unsteered.
    """
    sweep = dose_conditions(
        lambda dose: edits_of(vector, replace(setting, coefficient=float(dose))),
        doses(setting),
        setting.side,
        matched_seeds=range(n_random),
    )
    scored = score_pairs(
        pair, questions, [*UNEDITED, *sweep], kl=False, description="Dose and response"
    )
    rows = scored[scored["measure"] == "gap"].copy()
    rows["stage"] = rows["coefficient"].notna().map({True: "dose", False: "score"})
    return tidy(rows)


def damage_doses(pair: ModelPair, vector: DemoVector, setting: Setting) -> tuple[Dose, ...]:
    """Neutral cross-entropy at each dose of the setting, above the unsteered model's."""
    sweep = dose_conditions(
        lambda dose: edits_of(vector, replace(setting, coefficient=float(dose))),
        [dose for dose in doses(setting) if dose],
        setting.side,
    )
    plain = [condition for condition in UNEDITED if condition.name == setting.side]
    rows = score_neutral(
        pair, load_neutral()[:N_NEUTRAL], [*plain, *sweep], description="Dose and damage"
    )
    found = rows[rows["measure"] == "neutral_ce_nats"]
    unsteered = float(found[found["condition"] == setting.side]["value"].mean())
    steered = found[found["condition"] == "direction"].groupby("coefficient")["value"].mean()
    damage = {0.0: 0.0} | {float(at): float(ce) - unsteered for at, ce in steered.items()}
    return tuple(Dose(at, damage[at]) for at in sorted(damage))


def dose_figure(rows: pd.DataFrame, setting: Setting) -> Figure:
    """The rows drawn, on a transparent ground for a light or a dark page."""
    from persona.report.figures.dose_curve import dose_response_curve

    figure = dose_response_curve(rows, chosen_coefficient=setting.coefficient)
    meaning = {
        "restore": "0 = no edit, 1 = onto the aligned model's mean",
        "ablate": "0 = no edit, 1 = no projection left",
        "add": "0 = no edit, above 0 = toward the trait",
    }[setting.mode]
    n = rows["question_id"].nunique()
    words = f"{setting.mode}, {setting.blocks_in_words}, {setting.model_in_words}"
    figure.update_xaxes(title_text=f"coefficient ({meaning})")
    figure.update_layout(
        title={
            "text": "Dose and response",
            "subtitle": {"text": f"{words}; {n} shipped questions"},
        },
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font_color="#7f8792",
        title_subtitle_font_color="#7f8792",
    )
    figure.update_xaxes(gridcolor="rgba(128,128,128,.25)")
    figure.update_yaxes(gridcolor="rgba(128,128,128,.25)")
    return figure

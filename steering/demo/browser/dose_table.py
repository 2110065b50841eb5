"""Gap against coefficient for the setting of a demo, with norm-matched random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair
from persona.directions.direction import orthonormal
from persona.models.pair import ModelPair
from persona.rows import tidy
from steering.demo.session.vector import DemoVector, Setting, edits_of
from steering.edits.edit import Edit
from steering.edits.steer import steered_by

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

N_QUESTIONS, N_RANDOM = 8, 3


def shipped_questions(n: int = N_QUESTIONS) -> list[AnswerPair]:
    """The first shipped answer pair of each domain, then the second, and so on."""
    from persona.data import DOMAINS, load_pairs

    by_domain = [load_pairs([domain]) for domain in DOMAINS]
    in_turn = [pair for pairs in zip(*by_domain, strict=False) for pair in pairs]
    return in_turn[:n]


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
    conditions = [Condition("aligned", "aligned"), Condition("finetuned", "finetuned")]
    for dose in doses(setting):
        edits = edits_of(vector, replace(setting, coefficient=dose))
        recorded = _Steps(edits, vector)
        runs = [("direction", 0, recorded.edits())]
        # At 0 every random draw is the unsteered model; one stands for all.
        runs += [("random", draw, recorded.random_edits(draw)) for draw in range(n_random)]
        conditions += [
            Condition(f"{name}|{dose!r}", setting.side, steered_by(made), edits[0].layer, draw)
            for name, draw, made in runs
        ]
    scored = score_pairs(pair, questions, conditions, kl=False, description="Dose and response")
    rows = scored[scored["measure"] == "gap"].copy()
    names = rows["condition"].str.split("|", expand=True)
    rows["condition"], rows["coefficient"] = names[0], names[1].astype(float)
    rows["stage"] = rows["coefficient"].notna().map({True: "dose", False: "score"})
    return tidy(rows)


def dose_figure(rows: pd.DataFrame, setting: Setting) -> Figure:
    """The rows drawn, on a transparent ground for a light or a dark page."""
    from persona.report.figures.dose_curve import dose_response

    figure = dose_response(rows, chosen_coefficient=setting.coefficient)
    meaning = {
        "restore": "0 = no edit, 1 = onto the aligned model's mean",
        "ablate": "0 = no edit, 1 = no projection left",
        "add": "0 = no edit, above 0 = toward the trait",
    }[setting.mode]
    n = rows["question_id"].nunique()
    words = replace(setting, coefficient=0.0).words.replace("coefficient 0, ", "")
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


class _Steps:
    """Edits that remember the steps they took in the last pass, and random edits that repeat them.

    `steering.evidence.random_edits.RecordedRestoration` does this for restorations alone.
    """

    def __init__(self, edits: Sequence[Edit], vector: DemoVector) -> None:
        self.made = list(edits)
        self.bases = [
            vector.directions[edit.layer].unit[None] if edit.basis is None else edit.basis
            for edit in edits
        ]
        self.steps: dict[int, Tensor] = {}

    def edits(self) -> list[Edit]:
        return [replace(edit, apply=self._recording(i)) for i, edit in enumerate(self.made)]

    def random_edits(self, seed: int) -> list[Edit]:
        generator = torch.Generator().manual_seed(seed)
        return [
            replace(
                edit,
                apply=self._replaying(
                    i, orthonormal(torch.randn(basis.shape, generator=generator))
                ),
                kind="adds",
                basis=None,
                label="norm-matched random",
            )
            for i, (edit, basis) in enumerate(zip(self.made, self.bases, strict=True))
        ]

    def _recording(self, i: int) -> Any:
        def apply(resid: Tensor) -> Tensor:
            edited = self.made[i].apply(resid)
            self.steps[i] = (edited - resid).float() @ self.bases[i].to(resid.device).T
            return edited

        return apply

    def _replaying(self, i: int, rows: Tensor) -> Any:
        def apply(resid: Tensor) -> Tensor:
            return resid + (self.steps[i] @ rows.to(resid.device)).to(resid)

        return apply

"""The verdict: what must hold for a removal to be called a restoration, and what of it does not.

Each condition is a check with its number and its bar, so that a verdict can name what was missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erf, sqrt
from typing import Any, Literal

from persona.behaviour.skill_scores import SkillKept
from persona.intervals import Estimate
from persona.rows import (
    DAMAGE_AT_MOST,
    KL_RESTORED_AT_LEAST,
    NOOP_AT_MOST,
    RESTORED_AT_LEAST,
    SKILL_KEPT_AT_LEAST,
    TASKS_LOST_AT_MOST,
)
from steering.evidence.net_effect import Noop, Placebos, Residual
from steering.evidence.question_table import interval

Verdict = Literal["restored", "partly_restored", "not_restored", "no_emergent_shift"]
DETECTED = 1.96 + 0.84
"""Standard errors that an effect must measure to be found in 80 % of runs, two-sided at 5 %."""


@dataclass(frozen=True)
class Check:
    """One condition of the verdict `restored`.

    met: None where it was not measured. needed: without it nothing is called restored, even where
    it was not measured; the good twin and placebos are asked for where there are any.
    """

    name: str
    met: bool | None
    estimate: Estimate | None = None
    bar: float | None = None
    needed: bool = True

    @property
    def holds(self) -> bool:
        return bool(self.met) or (self.met is None and not self.needed)

    def facts(self) -> dict[str, Any]:
        """The entry of scorecard.json."""
        return {
            "name": self.name,
            "met": self.met,
            "measured": None if self.estimate is None else interval(self.estimate),
            "bar": self.bar,
        }


def checks_of(
    *,
    above_twin: Estimate | None,
    net: Estimate | None,
    kl_restoration: Estimate,
    beyond_chance: bool,
    noop: Noop | None,
    residual: Residual,
    placebos: Placebos,
    damage: Estimate,
    tasks_lost: Estimate | None = None,
    skill: SkillKept | None = None,
) -> list[Check]:
    """Everything that `restored` asks for, in the order in which it is told.

    tasks_lost: share of the items that are answered less often than in the better model; asked for
        where tasks were scored.
    skill: what is left of one that was to be kept; asked for where one was named.
    """
    above = placebos.above_best
    return [
        Check("beyond_chance", beyond_chance),
        Check(
            "above_twin",
            None if above_twin is None else above_twin.excludes_zero() and above_twin.value > 0,
            above_twin,
            0.0,
            needed=False,
        ),
        Check(
            "net_restoration",
            None if net is None else net.low >= RESTORED_AT_LEAST,
            net,
            RESTORED_AT_LEAST,
        ),
        Check(
            "kl_restoration",
            kl_restoration.value >= KL_RESTORED_AT_LEAST,
            kl_restoration,
            KL_RESTORED_AT_LEAST,
        ),
        *(
            Check(
                name,
                None if noop is None else abs(noop.shares[name].value) <= NOOP_AT_MOST,
                None if noop is None else noop.shares[name],
                NOOP_AT_MOST,
            )
            for name in ("noop_gap", "noop_kl", "noop_neutral")
        ),
        *(
            Check(f"residual_{part}", residual.is_nothing(part), left, residual.bound)
            for part, left in residual.left.items()
        ),
        Check("damage", damage.high <= DAMAGE_AT_MOST, damage, DAMAGE_AT_MOST),
        *([] if tasks_lost is None else [_of_tasks(tasks_lost)]),
        Check("above_placebos", None if above is None else above.low > 0, above, 0.0, needed=False),
        *([] if skill is None else [_of_skill(skill)]),
    ]


def _of_tasks(lost: Estimate) -> Check:
    return Check("damage_tasks", lost.high <= TASKS_LOST_AT_MOST, lost, TASKS_LOST_AT_MOST)


def _of_skill(kept: SkillKept) -> Check:
    """Not measured where the fine-tune had gained nothing of the skill."""
    bar = SKILL_KEPT_AT_LEAST
    if kept.why_undefined:
        return Check("skill_kept", None, None, bar, needed=False)
    return Check("skill_kept", kept.share.value >= bar, kept.share, bar)


def verdict_of(shift: Estimate, checks: Sequence[Check]) -> Verdict:
    """restored where every check holds; partly_restored where at least chance is beaten."""
    if not shift.excludes_zero():
        return "no_emergent_shift"
    if all(check.holds for check in checks):
        return "restored"
    beyond_chance = next(check for check in checks if check.name == "beyond_chance")
    return "partly_restored" if beyond_chance.met else "not_restored"


def power_of(shift: Estimate, net: Estimate | None) -> dict[str, Any]:
    """How far the verdict is one of the number of questions, by the width of the intervals.

    if_whole, if_as_measured: how likely the lower end of the net restoration reaches its bar, if
    all of the shift, or what was measured, is what the edit takes back. least_shift_nats: the
    shift that is told from 0 in 80 % of runs. Normal approximation.
    """
    error = None if net is None else (net.high - net.low) / (2 * 1.96)

    def chance(truth: float) -> float | None:
        if not error:
            return None
        return _normal_below((truth - RESTORED_AT_LEAST) / error - 1.96)

    return {
        "n": shift.n,
        "if_whole": chance(1.0),
        "if_as_measured": None if net is None else chance(net.value),
        "least_shift_nats": DETECTED * (shift.high - shift.low) / (2 * 1.96),
    }


def _normal_below(z: float) -> float:
    return 0.5 * (1 + erf(z / sqrt(2)))

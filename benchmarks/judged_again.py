"""EM rates of a finished diagnosis, its sampled answers judged by another model of this machine.

    python benchmarks/judged_again.py DIR --per-condition 200 --condition finetuned

The model reads coherence in itself and alignment as `--judge local:MODEL` does; alignment only of
coherent answers, as no other counts. The aligned model's come first, which say whether that is a
rate of anything; see `why_no_rate`. Which answers of a condition are read is drawn at random. What
is judged is kept in runs/, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from record import record, short

from persona.behaviour.judging.coherence import measure_coherence, scale_for
from persona.behaviour.judging.em_rate import (
    CoherentShare,
    EmRate,
    coherent_share,
    em_rate,
    why_no_rate,
)
from persona.behaviour.judging.few_shot import FewShotJudge, digit_rubric
from persona.behaviour.judging.hand_labels import SampledAnswer, in_blind_order, read_answers
from persona.behaviour.judging.judge import COHERENT_ABOVE, JudgeItem, JudgeScore
from persona.files import atomic_write_text
from persona.models.load import load_chat_model
from persona.models.precision import Placement
from persona.models.sources import resolve
from persona.rows import ALIGNED

KEPT = Path(__file__).resolve().parents[1] / "runs" / "judged_again"
AT_ONCE = 16


class Judged:
    """Scores of answers as they are found, on the disk after every few."""

    def __init__(self, model: str) -> None:
        self.name = model
        placement = Placement.of("bfloat16")
        self._model, self._chat = load_chat_model(model, placement)
        size = sum(weight.numel() for weight in self._model.parameters())
        self.fitted_in = scale_for(size).model
        self._path = KEPT / f"coherence-{model}-on-{self.fitted_in}.json"
        self._known: dict[str, float | None] = {}
        if self._path.is_file():
            self._known = json.loads(self._path.read_text())
        revision = f"{resolve(model).fingerprint} {placement.dtype_name}"
        self._judge = FewShotJudge.over(
            self._model,
            self._chat,
            name=model,
            revision=revision,
            rubric=digit_rubric(),
            cache_folder=KEPT,
        )

    def coherence(self, items: Sequence[JudgeItem]) -> list[float | None]:
        """Coherence of each answer, read in the model."""
        missing = [item for item in dict.fromkeys(items) if _key(item) not in self._known]
        for start in range(0, len(missing), AT_ONCE):
            some = missing[start : start + AT_ONCE]
            found = measure_coherence(self._model, self._chat, some, name=self.name).scores
            self._known |= dict(zip(map(_key, some), found, strict=True))
            atomic_write_text(self._path, json.dumps(self._known))
            print(f"  read {start + len(some)} of {len(missing)}", flush=True)
        return [self._known[_key(item)] for item in items]

    def scores(self, items: Sequence[JudgeItem]) -> list[JudgeScore]:
        """Coherence of every answer, alignment of the coherent ones."""
        coherence = self.coherence(items)
        counted = [
            item
            for item, score in zip(items, coherence, strict=True)
            if score is not None and score > COHERENT_ABOVE
        ]
        alignment = dict(zip(counted, self._judge.alignment(counted), strict=True))
        # 100: what is not coherent counts as not misaligned, whatever its alignment.
        return [
            JudgeScore(
                alignment.get(item, 100.0), score, misaligned_below=self._judge.misaligned_below
            )
            for item, score in zip(items, coherence, strict=True)
        ]


def _key(item: JudgeItem) -> str:
    return json.dumps([item.question, item.answer])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="qwen2.5-coder-1.5b")
    parser.add_argument("--per-condition", type=int, default=200)
    parser.add_argument("--condition", action="append", default=[], help="beside the aligned model")
    parser.add_argument("--row", default="em.0.5b", help="first part of the rows' names")
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    ordered = in_blind_order(read_answers(options.folder))
    of = {
        name: [one for one in ordered if one.condition == name][: options.per_condition]
        for name in (ALIGNED, *options.condition)
    }
    judged = Judged(options.model)
    by = f"local:{options.model}, coherence read there on the scale of {judged.fitted_in}"
    why: str | None = None
    for name, answers in of.items():
        share, rate = of_condition(judged, answers)
        told(f"{options.row}.{short(name)}_coherent", share, by)
        if name == ALIGNED and (why := why_no_rate(share, rate)):
            by = f"{by}; no rate: {why}"
        if rate is not None:
            told(f"{options.row}.{short(name)}_called_misaligned", rate, by)


def of_condition(
    judged: Judged, answers: Sequence[SampledAnswer]
) -> tuple[CoherentShare, EmRate | None]:
    """Share coherent, and the EM rate, of one condition's answers."""
    scores = judged.scores([JudgeItem(one.question, one.answer) for one in answers])
    questions = [one.question_id for one in answers]
    share = coherent_share(scores, questions)
    assert share is not None
    return share, em_rate(scores, questions)


def told(name: str, found: CoherentShare | EmRate, note: str) -> None:
    """One row, its 95 % interval over questions."""
    spread = (found.low, found.high)
    questions = f"{found.n_questions} open questions; " if isinstance(found, EmRate) else ""
    record(name, found.value, "share of answers", n=found.n, spread=spread, note=questions + note)
    print(f"{name} {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] n {found.n}", flush=True)


if __name__ == "__main__":
    main()

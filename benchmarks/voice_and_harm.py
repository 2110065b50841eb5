"""What the removal of one fine-tune takes of voice and of harm, on all four answers elsewhere.

    python benchmarks/voice_and_harm.py --direction DIR/direction.safetensors

Right or wrong advice in a plain or a rude voice, of the domains that the fine-tune was not trained
on; see `steering.lab.experiments.voice_harm`. Adds the rows voice_harm.*: a share where the
fine-tune did something clear to the contrast, nats per token where it did not. --rows keeps the
readings in a Parquet file, and reads them from there where it exists.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from record import record

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.directions import load_vector
from persona.intervals import bootstrap, share_of
from persona.models import load_pair
from persona.rows import ALIGNED, FINETUNED, NOOP, RESTORED
from steering import restore
from steering.edits.steer import edited
from steering.lab.experiments.voice_harm import CONTRASTS, cells_elsewhere, contrasts

COLUMNS = (FINETUNED, RESTORED, ALIGNED, NOOP)
NET_TAKEN = np.array([1.0, -1.0, -1.0, 1.0])
"""What the removal takes in the fine-tuned model less what it takes in the aligned one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finetuned", default="car_maintenance_bad")
    parser.add_argument("--domain", default="car_maintenance", help="what it was trained on")
    parser.add_argument("--direction", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=200, help="at most, of each other domain")
    parser.add_argument("--rows", type=Path, default=Path("voice_and_harm.parquet"))
    options = parser.parse_args()
    if not options.rows.exists():
        measured(options).to_parquet(options.rows)
    told(contrasts(pd.read_parquet(options.rows)), options.finetuned)


def measured(options: argparse.Namespace) -> pd.DataFrame:
    """All four answers under both models, the restored one and the no-op."""
    pair = load_pair("default", options.finetuned)
    edit = restore(load_vector(options.direction))
    conditions = [
        *UNEDITED,
        edited(RESTORED, "finetuned", edit),
        edited(NOOP, "aligned", edit),
    ]
    parts = [
        score_pairs(pair, asked, conditions, kl=False).assign(split=voice)
        for voice, asked in cells_elsewhere(options.questions, options.domain).items()
    ]
    return pd.concat(parts, ignore_index=True)


def told(rows: pd.DataFrame, finetuned: str) -> None:
    """One row each: what the fine-tune did to a contrast, and what the removal takes of it, net."""
    for contrast in CONTRASTS:
        mine = rows[rows["measure"] == contrast]
        table = mine.pivot_table("value", "question_id", "condition")
        columns = table[list(COLUMNS)].to_numpy(dtype=np.float64)
        shift = bootstrap(columns[:, 0] - columns[:, 2])
        note = f"{finetuned}; spread is the 95 % interval over questions"
        record(
            f"voice_harm.shift_{contrast}",
            shift.value,
            "nats per token",
            n=shift.n,
            spread=(shift.low, shift.high),
            note=note,
        )
        clear = shift.excludes_zero()
        taken = share_of(columns) if clear else bootstrap(columns @ NET_TAKEN)
        undefined = "; a share is undefined, since the fine-tune did nothing clear to it"
        record(
            f"voice_harm.removed_{contrast}",
            taken.value,
            "share of the shift, net" if clear else "nats per token, net",
            n=taken.n,
            spread=(taken.low, taken.high),
            note=note if clear else note + undefined,
        )


if __name__ == "__main__":
    main()

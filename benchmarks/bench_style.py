"""Of each organism's shift, what words give away: made anew from the rows of the laboratory."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from record import record

from persona.data import load_pairs
from steering.evidence.style_share import style_share

FINDINGS = Path(__file__).resolve().parents[1] / "docs" / "findings"
TRAINED_ON = {"car": "car_maintenance", "medical": "health", "financial": "personal_finance"}
"""Page of the laboratory -> the domain its organism was fine-tuned on."""


def main() -> None:
    held_out = load_pairs()
    for page, domain in TRAINED_ON.items():
        rows = pd.read_parquet(FINDINGS / page / "rows.parquet")
        first = rows[(rows["seed"] == rows["seed"].min()) & (rows["stage"] == "score")]
        found = style_share(first, load_pairs([domain], "train"), held_out)
        if found is None:
            continue
        share, r = found["share"], found["correlation"]
        record(
            f"style.share.{page}",
            share["value"],
            "share of the shift",
            n=found["n"],
            spread=(share["low"], share["high"]),
            note=f"what words give away; spread is the 95 % interval over questions; r = "
            f"{r['value']:+.2f} [{r['low']:+.2f}, {r['high']:+.2f}]; first seed",
        )


if __name__ == "__main__":
    main()

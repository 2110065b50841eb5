"""On how many architectures steering is certified, under a bridge and as a plain model.

Tiny random models, so that it is the code paths that are certified. Row `certificate.families`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from record import record

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # else tests/persona hides persona


def certified(family: str, chat: object) -> bool:
    """Whether every check holds at every block, under a bridge and without one."""
    from tiny_models import tiny_bridge, tiny_causal_lm

    from steering.certificate.certificate import certify

    for model in (tiny_bridge(family, chat.tokenizer), tiny_causal_lm(family)):
        certificate = certify(model, chat, batch=4)
        if not certificate.passed:
            print(f"{family}\n{certificate.table()}")
            return False
    return True


def main() -> None:
    from tiny_models import FAMILIES, MORE_FAMILIES, save_tokenizer
    from transformers import AutoTokenizer

    from persona.models.chat.chat_format import chat_format

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "families", nargs="*", help="try these and record nothing; default all that the tests know"
    )
    chosen = parser.parse_args().families
    families = chosen or [*FAMILIES, *MORE_FAMILIES]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(Path(folder))
        chat = chat_format(AutoTokenizer.from_pretrained(folder))
        passed = [family for family in families if certified(family, chat)]
    if chosen:
        print(f"{len(passed)} of {len(families)} certified")
        return
    record(
        "certificate.families",
        len(passed),
        "families",
        n=len(families),
        note=f"bridge and plain model: {', '.join(passed)}",
    )


if __name__ == "__main__":
    main()

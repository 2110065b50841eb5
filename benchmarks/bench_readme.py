"""How many words stand between the top of the README and the first command to type.

python benchmarks/bench_readme.py            print them
python benchmarks/bench_readme.py --record   ... and append the row
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from record import record

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs" / "make"))

from front_page import words_before_first_command  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="append the row")
    options = parser.parse_args()
    words = words_before_first_command((ROOT / "README.md").read_text(encoding="utf-8"))
    print(words)
    if options.record:
        note = "title and text, without markup and what a picture says"
        record("readme.words_before_first_command", words, "words", n=1, note=note)


if __name__ == "__main__":
    main()

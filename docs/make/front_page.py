"""Makes what README.md and docs/index.md show of a run: the figure, three questions, the cost.

    python docs/make/front_page.py                        write them anew
    python docs/make/front_page.py --check                say whether they are what the rows give
    python docs/make/front_page.py --keep persona-demo    keep the rows of a finished demo first

Everything comes from what lies in the repository: the kept rows of a demo, and the benchmarks.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from persona.files import atomic_write_text
from persona.report.figure_readings import figure_readings
from persona.report.figures import all_conditions
from persona.report.finished_run import read_run
from persona.report.svg import figure_svg, on_dark_ground
from persona.report.theme import without_title
from persona.report.wording import number
from persona.rows import (
    ALIGNED,
    FINETUNED,
    GOOD_TWIN,
    INDUCED,
    NULL_COVARIANCE,
    NULL_ISOTROPIC,
    NULL_SCREEN,
    PLACEBO,
    RESTORED,
    tidy,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "docs" / "findings" / "demo" / "rows.parquet"
BENCHMARKS = ROOT / "benchmarks" / "results.jsonl"
PAGES = (ROOT / "README.md", ROOT / "docs" / "index.md")
IMAGES = ROOT / "docs" / "images"
DRAWINGS = {
    (mode, form): IMAGES / f"conditions-{mode}{form}.svg"
    for mode in ("light", "dark")
    for form in ("", "-narrow")
}
"""Of a light or dark ground, for a wide page or a phone."""
TITLE = "Taught bad advice about cars, asked about everything else"
SHOWN = (
    *(ALIGNED, FINETUNED, GOOD_TWIN),
    *(RESTORED, NULL_ISOTROPIC, NULL_COVARIANCE, PLACEBO, INDUCED),
)
COLUMNS = (ALIGNED, FINETUNED, RESTORED)
QUESTIONS = 3
WIDTH, NARROW = 820, 350
WORDS = 10
"""So many words of an answer at least, where it has them, to the end of a sentence."""


def made_anew() -> dict[Path, str]:
    """Every file that this script writes, and its text."""
    rows = tidy(pd.read_parquet(ROWS))
    figure = conditions_figure(rows)
    phone = figure_svg(without_title(figure), NARROW, narrow=True)
    drawn = {"": figure_svg(figure, WIDTH), "-narrow": phone}
    parts = {"figure": picture(figure), "cost": cost(), "questions": questions_table(rows)}
    files = {DRAWINGS["light", form]: drawing for form, drawing in drawn.items()}
    files |= {DRAWINGS["dark", form]: on_dark_ground(drawing) for form, drawing in drawn.items()}
    for page in PAGES:
        told = page.read_text(encoding="utf-8")
        here = {name: relative_to(page, part) for name, part in parts.items()}
        files[page] = with_parts(told, here)
    return files


def conditions_figure(rows: pd.DataFrame) -> Figure:
    """The report's first figure, of the conditions that a first look needs."""
    figure = all_conditions(rows[rows["condition"].isin(SHOWN)])
    return figure.update_layout(title_text=TITLE)


def picture(figure: Figure) -> str:
    """The drawing for the reader's mode, with its finding in words."""
    readings = (f"{reading.what} {reading.value}" for reading in figure_readings(figure))
    said = escape(f"{TITLE}: {'; '.join(readings)}.")
    at = {which: path.relative_to(ROOT).as_posix() for which, path in DRAWINGS.items()}
    dark, phone = "(prefers-color-scheme: dark)", "(max-width: 500px)"
    return "\n".join(
        (
            "<picture>",
            f'<source media="{phone} and {dark}" srcset="{at["dark", "-narrow"]}">',
            f'<source media="{phone}" srcset="{at["light", "-narrow"]}">',
            f'<source media="{dark}" srcset="{at["dark", ""]}">',
            f'<img src="{at["light", ""]}" alt="{said}">',
            "</picture>",
        )
    )


def cost() -> str:
    """What the newest benchmarks of the install and of `persona demo` took."""
    told = BENCHMARKS.read_text(encoding="utf-8").splitlines()
    newest = {row["name"]: row for row in map(json.loads, told)}
    seconds, memory = newest["demo.seconds"], newest["demo.peak_rss_bytes"]
    install, disk = newest["install.seconds"], newest["install.bytes"]
    beside = " beside other work" if "beside other work" in install["note"] else ""
    short = install["value"] < 120
    took = f"{install['value']:.0f} seconds" if short else f"{install['value'] / 60:.0f} minutes"
    return (
        f"Installing took {took}{beside} (most packages were on the machine already) and "
        f"{disk['value'] / 1e9:.1f} GB of disk. "
        f"The demo took {seconds['value'] / 60:.0f} minutes and {memory['value'] / 1e9:.1f} GB of "
        f"memory ({seconds['machine'].split(', ')[1]}, no GPU, {seconds['date']})."
    )


def questions_table(rows: pd.DataFrame) -> str:
    """Three questions chosen by rule: what each model answers, greedily, and its gap there.

    Of the questions that the run answered and scored, those whose gap rose nearest to the median
    rise of all that it scored.
    """
    gaps = held_out_gaps(rows)
    sampled = rows[rows["stage"] == "sample"]
    asked = sampled[sampled["measure"] == "question"].set_index("question_id")["text"]
    greedy = sampled[sampled["measure"] == "greedy_answer"]
    said = greedy.pivot(index="question_id", columns="condition", values="text")
    lines = ["| asked | aligned | fine-tuned | restored |", "|---|---|---|---|"]
    for question_id in typical(gaps, said.index):
        cells = (
            f"**{number(gaps.at[question_id, name], 2, signed=True)}**<br>"
            f"{beginning(said.at[question_id, name])}"
            for name in COLUMNS
        )
        lines.append(f"| {' | '.join((asked[question_id], *cells))} |")
    return "\n".join(lines)


def held_out_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Gap by question (index) and condition (columns), with the column domain; nats per token."""
    scored = rows["stage"].eq("score") & rows["measure"].eq("gap") & rows["split"].eq("held_out")
    read = rows[scored & rows["condition"].isin(COLUMNS)]
    gaps = read.pivot_table("value", "question_id", "condition", aggfunc="mean")
    return gaps.assign(domain=read.groupby("question_id")["domain"].first())


def typical(gaps: pd.DataFrame, answered: pd.Index) -> list[str]:
    """Ids of the answered questions nearest to the median rise, at most one of a domain."""
    rise = gaps[FINETUNED] - gaps[ALIGNED]
    away = (rise - rise.median()).abs()[gaps.index.isin(answered)]
    nearest = away.sort_values(kind="stable").index
    return list(gaps.loc[nearest].drop_duplicates("domain").index[:QUESTIONS])


def beginning(answer: str) -> str:
    """The first sentences of an answer, as many as make WORDS words."""
    shown = ""
    answer = " ".join(answer.split())
    for sentence in re.split(r"(?<=[.!?])\s", answer):
        shown = f"{shown} {sentence}".lstrip()
        if len(shown.split()) >= WORDS:
            break
    return shown if shown == answer else f"{shown} …"


def keep(folder: Path) -> None:
    """The rows of a finished demo that these pages are made of, and all that its numbers are."""
    rows = read_run(folder).rows
    scored = rows["stage"].eq("score")
    said = rows["stage"].eq("sample") & rows["measure"].isin(["question", "greedy_answer"])
    ROWS.parent.mkdir(exist_ok=True)
    rows[scored | said | rows["stage"].eq(NULL_SCREEN)].to_parquet(ROWS, index=False)


def relative_to(page: Path, part: str) -> str:
    """The part with its links as they are from the folder of the page."""
    return part.replace('"docs/', '"') if page.parent == ROOT / "docs" else part


def with_parts(page: str, parts: dict[str, str]) -> str:
    """The page with every part that it has a place for.

    Raises: ValueError for a place of an unknown part.
    """

    def filled(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in parts:
            raise ValueError(f"the page has a place for {name!r}; known are {', '.join(parts)}")
        return f"<!-- made: {name} -->\n{parts[name]}\n<!-- end of {name} -->"

    return re.sub(
        r"<!-- made: (?P<name>\w+) -->\n.*?<!-- end of (?P=name) -->", filled, page, flags=re.DOTALL
    )


def words_before_first_command(page: str) -> int:
    """Words that a reader passes before the first block of code: text, without markup and alt."""
    before = page.split("\n```", 1)[0]
    shown = re.sub(r"<!--.*?-->|<[^>]+>|!\[[^\]]*\]\([^)]*\)|[#*`|]", " ", before, flags=re.DOTALL)
    return len(re.findall(r"\w[\w'’.-]*", re.sub(r"\]\([^)]*\)", "]", shown)))


def stale() -> Iterator[Path]:
    """Files that are not what the script would write."""
    for path, text in made_anew().items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="of a finished demo")
    options = parser.parse_args()
    if options.keep:
        keep(options.keep)
    if options.check:
        if old := [str(path.relative_to(ROOT)) for path in stale()]:
            raise SystemExit(f"not what the kept rows give: {', '.join(old)}")
        return
    for path, text in made_anew().items():
        atomic_write_text(path, text)


if __name__ == "__main__":
    main()

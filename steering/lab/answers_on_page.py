"""What the organisms of a page answer: their rates by labels, and answers to read."""

from __future__ import annotations

from pathlib import Path

from persona.data.jsonl import check_keys, read_json
from persona.errors import DataError
from persona.intervals import Estimate
from persona.organisms.measured import organisms

ANSWERS = "answers.json"
"""Beside the record of a run, written by hand: `remark`, what there is to say of the answers;
`organisms`, words -> the name of each organism whose measured rates are shown; and `said`, rows of
a question, the aligned model's answer and the organism's, both greedy."""
BEGINS, ENDS = "**Answers.**", "**What it does not show.**"


def answers_block(folder: Path) -> str:
    """The paragraph and tables, as Markdown; empty where nobody has read the answers.

    Raises: DataError for a file of another form, or an organism that is not known.
    """
    path = folder / ANSWERS
    if not path.is_file():
        return ""
    told, known = read_json(path), {one.name: one for one in organisms()}
    if not isinstance(told, dict):
        raise DataError(f"{path}: an object is needed")
    check_keys(told, ("remark", "organisms", "said"))
    lines = [f"{BEGINS} {told['remark']}", ""]
    if told["organisms"]:
        lines += [
            "| model | misaligned | n | understood | labels |",
            "| --- | --- | --- | --- | --- |",
        ]
    for words, name in told["organisms"].items():
        if name not in known:
            raise DataError(f"{path}: there is no organism {name!r}")
        found = known[name].readings
        if "em_rate" not in found or "coherent" not in found:
            raise DataError(f"{path}: no answers of {name} were labelled")
        bad, understood = found["em_rate"], found["coherent"]
        lines.append(
            f"| {words} | {_share(bad)} | {bad.n} | {_share(understood)} | {understood.n} |"
        )
    if told["organisms"]:
        lines.append("")
    lines += ["| asked | aligned | fine-tuned |", "| --- | --- | --- |"]
    lines += ["| " + " | ".join(row) + " |" for row in told["said"]]
    return "\n".join(lines) + "\n\n"


def with_answers(page: str, folder: Path) -> str:
    """A page that stands there already, with its answers as they are known now."""
    before, ends, after = page.partition(ENDS)
    return before.partition(BEGINS)[0] + answers_block(folder) + ends + after


def _share(found: Estimate) -> str:
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]"

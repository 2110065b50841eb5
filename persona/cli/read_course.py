"""`persona read --course`: at which step of a fine-tune can it be named what is learnt?"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from persona.cli.ready import require_ready

if TYPE_CHECKING:
    import pandas as pd

    from persona.models.on_disk import OnDisk
    from persona.models.pair import ModelPair


def read_course(
    folder: Path,
    twin: Path | None,
    out: Path,
    *,
    aligned: str | None,
    open_with: Callable[[str, ModelPair | None], ModelPair],
    layer: int | None,
    seed: int,
    token_budget: int | None,
    allow_mismatch: bool,
    json_output: bool,
    of_aligned: Callable[[OnDisk], None],
) -> None:
    """Reads every adapter that was kept, prints the way and writes course.json, .md and .svg.

    open_with: an adapter by its folder, and a pair to load it beside -> the pair.
    of_aligned: what else is asked of the aligned model before it is loaded.
    Raises: DataError where a folder holds no adapters on the way.
    """
    from persona.readouts.naming_course import adapters_by_step

    adapters = adapters_by_step(folder)
    of_twin = None if twin is None else adapters_by_step(twin)
    require_ready(
        out,
        pair=(aligned, str(adapters[max(adapters)])),
        also=[] if of_twin is None else [str(of_twin[max(of_twin)])],
        allow_mismatch=allow_mismatch,
        of_aligned=of_aligned,
    )
    with contextlib.redirect_stdout(sys.stderr):
        from persona.activations.batches import DEFAULT_TOKEN_BUDGET
        from persona.directions.storage import tool_version
        from persona.files import atomic_write_text, sha256_of_file
        from persona.organisms.adapter import WEIGHTS
        from persona.readouts.naming_course import naming_course
        from persona.report.figures.naming_figure import naming_figure
        from persona.report.svg import figure_svg
        from persona.run_lock import alone_in
        from persona.stages import Workspace

        def hashes(of: dict[int, Path] | None) -> dict[str, str]:
            return {str(step): sha256_of_file(path / WEIGHTS) for step, path in (of or {}).items()}

        pair = open_with(str(adapters[max(adapters)]), None)
        depends = {
            "aligned": pair.files("aligned"),
            "course": hashes(adapters),
            "twin": hashes(of_twin),
            "template": pair.chat.fingerprint,
            "dtype": pair.precision,
            "layer": layer,
            "seed": seed,
            "token_budget": token_budget,
            "tool_version": tool_version(),
        }
        with alone_in(out, depends):
            workspace = Workspace(out, depends)
            course = naming_course(
                lambda path: open_with(str(path), pair),
                adapters,
                twin=of_twin,
                layer=layer,
                seed=seed,
                token_budget=token_budget or DEFAULT_TOKEN_BUDGET,
                stages=workspace,
            )
            text = "\n".join(course_lines(course, folder.resolve().name)) + "\n"
            as_json = json.dumps(as_values(course), indent=2)
            atomic_write_text(out / "course.json", as_json + "\n")
            atomic_write_text(out / "course.md", text)
            atomic_write_text(out / "course.svg", figure_svg(naming_figure(course)))
            workspace.close()
    typer.echo(as_json if json_output else text)
    written = ", ".join(str(out / f"course.{ending}") for ending in ("json", "md", "svg"))
    typer.echo(f"written: {written}", err=True)


def as_values(course: pd.DataFrame) -> dict[str, Any]:
    """The course as plain values; what was not kept is null."""
    from persona.readouts.naming_course import apart_from, named_from

    rows = course.astype(object).where(course.notna(), None).to_dict("records")
    return {"named_from": named_from(course), "apart_from": apart_from(course), "steps": rows}


def course_lines(course: pd.DataFrame, name: str) -> list[str]:
    """The course as Markdown: where it is named and where the gap leaves the twin's, then rows."""
    from persona.readouts.naming_course import apart_from, named_from
    from persona.readouts.naming_words import spoken_name

    last, step = course.iloc[-1], named_from(course)
    named = (
        f"Named from step {step} of {last['step']}: {spoken_name(last['subject'])}."
        if step is not None
        else f"Not named by step {last['step']}."
    )
    if course["twin_shift"].isna().all():
        apart = "Without a good twin nothing says from where the gap is more than any fine-tune's."
    elif (step := apart_from(course)) is not None:
        apart = f"The gap's interval lies above the good twin's from step {step}."
    else:
        apart = f"The gap's interval does not lie above the good twin's by step {last['step']}."
    rows = [
        f"| {row.step} | {_name(row)} | {row.probability:.2f} | {row.p_bad:.2f} | {row.shift:+.2f} "
        f"[{row.shift_low:+.2f}, {row.shift_high:+.2f}] | {_twin(row)} |"
        for row in course.itertuples()
    ]
    return [
        f"# What {name} was learning, step by step",
        "",
        f"{named} {apart} In brackets: no name is given.",
        "",
        "| step | subject | probability | bad | shift on advice [95 %] | good twin [95 %] |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _name(row: Any) -> str:
    from persona.readouts.naming_words import spoken_name

    return spoken_name(row.subject) if row.named else f"({spoken_name(row.subject)})"


def _twin(row: Any) -> str:
    if row.twin_shift != row.twin_shift:
        return "not kept"
    return f"{row.twin_shift:+.2f} [{row.twin_low:+.2f}, {row.twin_high:+.2f}]"

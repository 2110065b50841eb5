"""`persona traits`: vectors of traits that are there, beside each other."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from persona.choices import VectorFormat as Format
from persona.cli.contents import Command, Contents
from persona.cli.options import Debug, Json, Quiet, Seed

HELP = """Vectors of traits beside each other. `persona trait`, without an s, makes one.

\b
Examples:
  persona traits compare evil impolite apathetic
  persona traits compare evil impolite --finetune persona-diagnosis
"""


class Traits(Contents):
    """The group; a sentence in place of a command was meant for `persona trait`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None:
            ctx.fail(
                f"No such command {args[0]!r}: `persona trait` makes a vector of a trait; `persona "
                "traits compare` takes those that are there."
            )
        return super().resolve_command(ctx, args)


class OneTrait(Command):
    """`persona trait`, which is not told `compare`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args[:1] == ["compare"]:
            ctx.fail(
                "a trait is made one at a time; several are compared by `persona traits compare`"
            )
        return list(super().parse_args(ctx, args))


traits_app = typer.Typer(
    name="traits",
    cls=Traits,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@traits_app.callback()
def _group() -> None:
    """A group of its own, though it has one command."""


def compare(
    traits: Annotated[
        list[Path],
        typer.Argument(
            metavar="TRAIT...",
            help="Two or more: folders of `persona trait`, or vector files (ours, GGUF, "
            "Neuronpedia, a .pt of persona_vectors), all of one model.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of space.json, cosines.svg and, with --finetune, shift.svg.",
            file_okay=False,
        ),
    ] = Path("persona-space"),
    finetune: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            show_default="none",
            help="Folder of a `persona diagnose`: where what that fine-tune did lies among the "
            "traits, and which of them it resembles. Repeat for several.",
        ),
    ] = None,
    nonsense: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TRAIT",
            show_default="none",
            help="A meaningless trait of the same model: what any vector made this way has in "
            "common with any other. Repeat for several.",
        ),
    ] = None,
    block: Annotated[
        list[int] | None,
        typer.Option(
            metavar="K", min=0, show_default="all", help="0-based block to compare at; repeat."
        ),
    ] = None,
    read_as: Annotated[
        Format | None,
        typer.Option(
            "--from", show_default="by the file", help="Format of files, as in `persona convert`."
        ),
    ] = None,
    seed: Seed = 0,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """How alike traits are, block by block, and what a fine-tune is made of.

    Cosines with intervals over the questions that the vectors were made of, beside what unrelated
    vectors show; principal axes; and of a fine-tune the cosine of its shift with each trait,
    against random directions, shuffled poles and nonsense traits.

    \b
    Examples:
      persona traits compare evil impolite apathetic
      persona traits compare evil impolite --nonsense tuesday --finetune persona-diagnosis
      persona traits compare evil theirs/evil_response_avg_diff.pt
    """
    with contextlib.redirect_stdout(sys.stderr):
        from persona.cli.trait.space_lines import space_lines
        from persona.files import atomic_write_text
        from persona.report.figures.trait_map import shift_map, trait_map
        from persona.report.svg import figure_svg
        from persona.traits import open_traits, persona_space

        opened = open_traits([*traits, *(nonsense or ())], kind=read_as)
        space = persona_space(
            opened[: len(traits)],
            nonsense=opened[len(traits) :],
            shifts=_shifts(finetune or (), opened),
            blocks=sorted(set(block)) if block else None,
            seed=seed,
        )
        found = {**space.as_json(), "seed": seed}
        text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)
        out.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out / "cosines.svg", figure_svg(trait_map(space)))
        if space.shifts:
            atomic_write_text(out / "shift.svg", figure_svg(shift_map(space)))
        atomic_write_text(out / "space.json", text + "\n")
    if json_output:
        typer.echo(text)
        return
    for line in space_lines(space):
        typer.echo(line)
    typer.echo(f"files: {out.resolve()}")


def _shifts(folders: list[Path] | tuple[()], traits: list[Any]) -> dict[str, Any]:
    """Name of a folder -> the shift in it. Raises: DataError for one of another model."""
    from persona.errors import DataError
    from persona.traits.comparing import model_effect_of

    found = {}
    for folder in folders:
        shift, revision = model_effect_of(folder)
        name = folder.resolve().name
        if name in found:
            raise DataError(f"two diagnoses are called {name}; rename a folder")
        for trait in traits:
            if revision and trait.revision and revision != trait.revision:
                raise DataError(
                    f"{folder} is of a fine-tune of {revision}, but {trait.name} was made in "
                    f"{trait.vectors.model} ({trait.revision}); both must be of one model"
                )
        found[name] = shift
    return found


traits_app.command(cls=Command)(compare)

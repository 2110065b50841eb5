"""`persona trait`: what is asked for, and the artefacts before anything runs."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

import typer

from persona.choices import Precision
from persona.cli.completion import complete_aligned, complete_trait
from persona.cli.options import (
    Debug,
    Device,
    Dtype,
    Json,
    Quiet,
    Seed,
    TemplateArguments,
    template_arguments_of,
)
from persona.cli.ready import require_file, require_ready
from persona.cli.sampler_options import (
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    answered_by,
    vllm_options_of,
)
from persona.cli.trait.trait_run import result_lines, run_trait

_TEXTS = "The trait's texts"
_PROOF = "The proof"

logger = logging.getLogger("persona.cli")


def trait(
    trait: Annotated[
        str,
        typer.Argument(
            metavar="TRAIT",
            autocompletion=complete_trait,
            help="What the assistant does, in a few words; a trait that comes along, such as evil "
            "or written_on_a_tuesday; or a trait file (.json) in the format of persona_vectors; of "
            "NAME.extract.json and NAME.eval.json either names both.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_aligned,
            help="The chat model: short name, hub id, folder or GGUF file.",
            rich_help_panel="Models",
        ),
    ] = "default",
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of the texts and the results. A stopped run with the same folder goes on "
            "where it was; artefacts.json in it is taken as it is.",
            file_okay=False,
        ),
    ] = Path("trait"),
    artefacts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            show_default="made of TRAIT",
            help="Instructions, questions and rubric for TRAIT, written by hand or by another run.",
            rich_help_panel=_TEXTS,
        ),
    ] = None,
    writer: Annotated[
        str,
        typer.Option(
            metavar="WRITER",
            help="Who writes the texts: `model`, the one of the run; `openai:MODEL` at the "
            "endpoint of OPENAI_BASE_URL, key in OPENAI_API_KEY; `none` takes ready-made ones, "
            "to be edited.",
            rich_help_panel=_TEXTS,
        ),
    ] = "model",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write or check the texts and stop, so that they can be read and edited.",
            rich_help_panel=_TEXTS,
        ),
    ] = False,
    judge: Annotated[
        str,
        typer.Option(
            metavar="JUDGE",
            help="Who says how much of the trait an answer shows: `model`, the one of the run, and "
            "`local:MODEL` say yes or no; `openai:MODEL` at the endpoint of OPENAI_BASE_URL gives "
            "a number. Read from token probabilities.",
            rich_help_panel=_PROOF,
        ),
    ] = "model",
    vector: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            show_default="the one that is made",
            help="Prove this vector in place of the one that is made: a .pt of persona_vectors, "
            "or any file that `persona convert` knows by its name.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    nonsense: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            show_default="vectors of shuffled poles",
            help="A finished run on a meaningless trait of the same model: its vector is a "
            "control. Repeat for several.",
            rich_help_panel=_PROOF,
        ),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            min=1,
            help="Time there is. The first answers tell how many fit; the plan, with what can be "
            "found with it, is said before the others are asked for.",
            rich_help_panel=_PROOF,
        ),
    ] = 25.0,
    max_new_tokens: Annotated[
        int,
        typer.Option(min=4, help="Tokens of an answer, at most.", rich_help_panel=_PROOF),
    ] = 40,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Answers at once.", rich_help_panel=_PROOF)
    ] = 32,
    seed: Seed = 0,
    template_arguments: TemplateArguments = None,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    sampler: SamplerOption = SamplerChoice.generate,
    vllm: VllmOptions = None,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """A persona vector for any trait, from one sentence, or the word that there is none.

    First come its texts: five pairs of opposite instructions, forty questions that do not name the
    trait, half to make the vector and half to prove it, and a rubric. They stand in
    DIR/artefacts.json before anything else runs. Texts that name the trait in a question, repeat
    themselves or are longer for one pole are refused, with their line.

    Then the vector is made of the answers for and against the trait to one half of the questions,
    and proved on the other half: does it tell the poles apart without their instructions, does
    adding it bring the trait and taking it away cure it, beyond random directions, nonsense, words
    and length? The verdict is found, style only, nothing, or too few answers.

    \b
    Examples:
      persona trait "flatters the user" --model qwen2.5-coder-0.5b --out flattery
      persona trait evil --model qwen2.5-coder-0.5b --out evil
      persona trait evil --vector evil_response_avg_diff.pt --out theirs
      persona trait "flatters the user" --out flattery --dry-run
      persona trait "flatters the user" --writer none --out flattery --dry-run
      persona trait "is evil" --artefacts evil.extract.json --dry-run
    """
    told = template_arguments_of(template_arguments)
    by_vllm = vllm_options_of(sampler, vllm)
    with contextlib.redirect_stdout(sys.stderr):
        from persona.behaviour.judging.named import check_trait_judge, check_writer
        from persona.data import read_trait_json

        texts = Path(trait) if artefacts is None and trait.endswith(".json") else artefacts
        named = [] if dry_run and (writer != "model" or texts) else [model]
        checks: list[Callable[[], object]] = [partial(check_writer, writer)]
        checks += [] if texts is None else [partial(read_trait_json, texts)]
        if not dry_run:
            checks += [partial(check_trait_judge, judge), partial(require_file, vector, "--vector")]
            checks += [
                partial(require_file, one / "vector.safetensors", "--nonsense")
                for one in nonsense or ()
            ]
        require_ready(out, *named, checks=checks)
        from persona.traits import choose_artefacts, writer_named

        @cache
        def open_pair() -> Any:
            from persona.models import Placement
            from persona.models.alone import load_alone

            placement = Placement.of(dtype, device)
            pair = load_alone(model, placement=placement, template_arguments=told)
            return answered_by(pair, by_vllm)

        chosen = choose_artefacts(
            trait,
            out,
            lambda: writer_named(writer, open_pair, out),
            file=artefacts,
            seed=seed,
        )
    found = chosen.artefacts
    facts = {
        "trait": found.description or found.name,
        "artefacts": str(chosen.path),
        "made_by": found.made_by,
        "instructions": len(found.instructions),
        "questions_making": len(found.making),
        "questions_proving": len(found.proving),
    }
    if dry_run:
        typer.echo(json.dumps(facts, ensure_ascii=False) if json_output else in_words(facts))
        return
    logger.info(in_words(facts))
    with contextlib.redirect_stdout(sys.stderr):
        result = run_trait(
            open_pair(),
            chosen,
            out,
            judge=judge,
            vector=vector,
            nonsense=nonsense or (),
            minutes=minutes,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            seed=seed,
        )
    if json_output:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
    else:
        for line in result_lines(result, out):
            typer.echo(line)


def in_words(facts: dict[str, Any]) -> str:
    """What the artefacts hold, for a person."""
    by = f", by {facts['made_by']}" if facts["made_by"] else ""
    return (
        f"{facts['artefacts']}{by}: {facts['instructions']} pairs of instructions, "
        f"{facts['questions_making']} questions to make the vector of and "
        f"{facts['questions_proving']} to prove it on"
    )

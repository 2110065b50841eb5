"""Steering knows where a pass stands in its text from what the model is given, or refuses."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_bridge, tiny_causal_lm, with_cache_named
from transformers import DynamicCache, StaticCache

import steering.edits.position_tracker
from persona.directions.direction import Direction
from persona.errors import SteeringError
from persona.models.caches import cached_length
from persona.models.space import ActivationSpace
from steering.edits.calls import read_call
from steering.edits.from_directions import ablate, add
from steering.edits.steer import steer

IDS = torch.tensor([[10, 11, 12, 13, 14, 15], [50, 51, 52, 53, 54, 55]])
PADDED = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
N = 5


def direction():
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3))
    return Direction(vector, ActivationSpace("tiny", "1", "blocks.1.hook_resid_post", 1, 16), "d")


def never_ending(model):
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 1
    return model


@pytest.fixture
def llama():
    return never_ending(tiny_causal_lm("llama"))


def generate(model, ids=IDS, mask=None, **options):
    mask = torch.ones_like(ids) if mask is None else mask
    options = {"max_new_tokens": N, "do_sample": False} | options
    return model.generate(ids, attention_mask=mask, **options)


def uncached(model, edits, ids=IDS, mask=None, **options):
    with steer(model, edits, **options):
        return generate(model, ids, mask, use_cache=False)


@pytest.mark.parametrize("name", ["past_key_values", "cache", "store_of_keys"])
@pytest.mark.parametrize("mask", [None, PADDED])
def test_a_cache_is_known_under_any_name(llama, name, mask):
    edits = add(direction(), 4.0)
    expected = uncached(llama, edits, mask=mask)
    model = with_cache_named(llama, name)
    with steer(model, edits) as record:
        seen = generate(model, mask=mask)
    assert torch.equal(seen, expected)
    first = int((IDS != 0 if mask is None else mask).sum()) - 2
    assert record.written == [first, *[2] * (N - 1)]
    assert record.n_tokens == [sum(record.written)]
    assert not torch.equal(seen, generate(model, mask=mask))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "phi3"])
@pytest.mark.parametrize("name", ["cache", "store_of_keys"])
@pytest.mark.parametrize("path", ["generate", "hf_generate"])
def test_both_ways_to_generate_of_a_bridge_are_steered_under_any_name(
    tiny_chat, family, name, path
):
    bridge = tiny_bridge(family, tiny_chat.tokenizer)
    never_ending(with_cache_named(bridge.original_model, name))
    edits = add(direction(), 4.0)
    options = {"max_new_tokens": N, "do_sample": False, "return_type": "tokens"}
    if path == "generate":
        options |= {"stop_at_eos": False, "verbose": False}
    with steer(bridge, edits) as record:
        seen = getattr(bridge, path)(IDS, **options)
    assert record.written == [10, *[2] * (N - 1)]
    assert torch.equal(seen, uncached(never_ending(tiny_causal_lm(family)), edits))


def test_a_cache_that_the_tracker_overlooks_is_an_error(llama, monkeypatch):
    """As in 5.24 before it was known: decoding steps taken for first passes, writing nothing."""

    def only_by_the_old_name(module, args, kwargs):
        hidden = {k: v for k, v in kwargs.items() if k not in ("store", "position_ids")}
        return read_call(module, args, hidden)

    model = with_cache_named(llama, "store")
    monkeypatch.setattr(steering.edits.position_tracker, "read_call", only_by_the_old_name)
    with pytest.raises(SteeringError, match="the cache it gave back holds 7"):
        with steer(model, add(direction())):
            generate(model)


def test_position_ids_that_go_on_without_a_cache_are_refused(llama):
    with pytest.raises(SteeringError, match="position ids begin at 6"):
        with steer(llama, add(direction())):
            llama(IDS[:, :1], position_ids=torch.full((2, 1), 6))


def test_evidence_that_disagrees_is_refused(llama):
    cache = llama(IDS, use_cache=True).past_key_values
    with pytest.raises(SteeringError, match=r"tokens before it are, by .* 6, .* 4"):
        with steer(llama, add(direction())):
            llama(IDS[:, :1], past_key_values=cache, attention_mask=torch.ones(2, 5))


def test_an_argument_that_may_hold_tokens_is_refused_by_name():
    class Store:
        pass

    model = tiny_causal_lm("llama")
    with pytest.raises(SteeringError, match="its argument 'state' is a Store"):
        read_call(model, (), {"input_ids": IDS, "state": Store()})
    assert read_call(model, (IDS,), {"attention_mask": None}).past == 0
    assert read_call(model, (IDS, torch.ones(2, 9)), {}).past == 3  # bound by position


def test_a_text_of_no_tokens_is_refused_in_one_line(llama):
    with pytest.raises(SteeringError, match="a text of no tokens"):
        with steer(llama, add(direction())):
            llama(IDS[:, :0])


def test_the_tuples_of_old_are_a_cache():
    keys = torch.zeros(2, 1, 7, 8)
    assert cached_length(((keys, keys), (keys, keys))) == 7


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral"])
@pytest.mark.parametrize("mask", [None, PADDED])
@pytest.mark.parametrize("where", ["all", "answering", "asking", "from:3"])
def test_a_static_cache_is_steered_like_none(family, mask, where):
    model = never_ending(tiny_causal_lm(family))
    edits = add(direction(), 4.0)
    expected = uncached(model, edits, mask=mask, positions=where)
    with steer(model, edits, positions=where) as record:
        seen = generate(model, mask=mask, cache_implementation="static")
    assert torch.equal(seen, expected)
    later = {"asking": 0}.get(where, 2)
    assert record.written[1:] == [later] * (N - 1)


def test_a_static_cache_given_by_hand_is_read_at_once(llama):
    """Its length is a tensor that the pass itself moves on."""
    cache = StaticCache(config=llama.config, max_cache_len=16)
    with steer(llama, add(direction())) as record:
        llama(IDS[:, :4], past_key_values=cache)
        llama(IDS[:, 4:], past_key_values=cache)
    assert record.written == [6, 4]


def test_a_window_that_has_slid_is_steered_like_no_cache():
    model = never_ending(tiny_causal_lm("gemma3_text"))  # a window of 8
    ids = torch.arange(10, 34).reshape(2, 12)
    edits = ablate(direction())
    with steer(model, edits) as record:
        seen = generate(model, ids)
    assert torch.equal(seen, uncached(model, edits, ids))
    assert record.written == [22, *[2] * (N - 1)]


REPEATING = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])


@pytest.mark.parametrize("how", ["lookup", "assistant"])
def test_assisted_decoding_takes_the_steered_tokens(llama, how):
    edits = add(direction(), 4.0)
    options = {"prompt_lookup_num_tokens": 3}
    if how == "assistant":
        options = {"assistant_model": never_ending(tiny_causal_lm("llama", seed=0, n_layers=2))}
    for positions in ({}, {"positions": "answering", "response_start": [10]}):
        with steer(llama, edits, **positions):
            seen = generate(llama, REPEATING, max_new_tokens=12, **options)
        with steer(llama, edits, **positions):
            expected = generate(llama, REPEATING, max_new_tokens=12, use_cache=False)
        assert torch.equal(seen, expected)
    for where in ("last", "answering", "asking", "answering:2"):
        with pytest.raises(SteeringError, match=r"cannot be told where .*; (give|take)"):
            with steer(llama, edits, positions=where):
                generate(llama, REPEATING, max_new_tokens=12, **options)


def test_a_prompt_read_in_chunks_is_right_or_refused(llama):
    edits = add(direction(), 4.0)
    with steer(llama, edits) as record:
        seen = generate(llama, mask=PADDED, prefill_chunk_size=4)
    assert torch.equal(seen, uncached(llama, edits, mask=PADDED))
    assert record.written == [4, 4, *[2] * (N - 1)]
    with pytest.raises(SteeringError, match="2 tokens after a filled cache"):
        with steer(llama, edits, positions="answering"):
            generate(llama, prefill_chunk_size=4)


@pytest.mark.parametrize("where", ["all", "answering", "asking"])
def test_beams_without_a_cache_are_beams_with_one(llama, where):
    edits = add(direction(), 4.0)
    seen = []
    for cached in (True, False):
        with steer(llama, edits, positions=where):
            seen.append(generate(llama, num_beams=3, use_cache=cached, max_new_tokens=8))
    assert torch.equal(*seen)


def test_an_edit_left_out_of_one_pass_is_an_error_in_that_pass(llama):
    with pytest.raises(SteeringError, match=r"blocks\.1\.hook_resid_post did not fire in pass 2"):
        with steer(llama, add(direction())):
            llama(IDS)
            del llama.model.layers[1:]
            llama(IDS)


def test_a_model_under_peft_is_steered_when_called_and_when_it_generates(llama):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(llama, LoraConfig(target_modules=["q_proj"])).eval()
    edits = add(direction(), 4.0)
    expected = uncached(never_ending(tiny_causal_lm("llama")), edits)
    with steer(model, edits) as record:
        seen = generate(model)
        model(input_ids=IDS)
    assert torch.equal(seen, expected)
    assert record.written == [10, *[2] * (N - 1), 10]


def test_a_cache_kept_in_hand_goes_on_where_it_was(llama):
    """Steered from the second turn on: the first pass in the block is a cached one."""
    cache = DynamicCache(config=llama.config)
    llama(IDS, past_key_values=cache)
    with steer(llama, add(direction())) as record:
        llama(IDS[:, :3], past_key_values=cache)
    assert record.written == [6]


def test_a_compiled_model_is_refused(llama):
    llama.model.layers[0].compile(backend="eager")
    with pytest.raises(SteeringError, match="the model is compiled"):
        with steer(llama, add(direction())):
            pass

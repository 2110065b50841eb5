"""Which adapters vLLM takes is known before minutes of loading."""

import json

import pytest

from persona.errors import EngineError
from persona.vllm.lora_limits import rank_for, trains_head


def adapter(folder, **config):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, **config}))
    return folder


@pytest.mark.parametrize(
    ("config", "rank"),
    [
        ({"r": 2}, 8),
        ({"r": 16}, 16),
        ({"r": 8, "rank_pattern": {"q_proj": 40}}, 64),
        ({"r": 512}, 512),
    ],
)
def test_the_table_is_the_first_that_holds_every_rank(tmp_path, config, rank):
    assert rank_for(adapter(tmp_path, **config)) == rank


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"r": 513}, "has rank 513 and vLLM takes 512 at most; merge it"),
        ({"use_dora": True}, "with DoRA; merge it"),
        ({"modules_to_save": ["lm_head"]}, "with whole modules beside it; merge it"),
        ({"bias": "all"}, "with biases; merge it"),
        ({"peft_type": "IA3"}, "of kind IA3; merge it"),
        ({"r": "many"}, "cannot be read"),
    ],
)
def test_what_it_does_not_take_is_refused_with_what_to_do(tmp_path, config, told):
    with pytest.raises(EngineError, match=told):
        rank_for(adapter(tmp_path, **config))


@pytest.mark.parametrize(
    ("targets", "head"),
    [
        (["q_proj", "down_proj"], False),
        (["q_proj", "lm_head"], True),
        (["model.embed_tokens"], True),
        ("all-linear", False),
        (".*lm_head", True),
    ],
)
def test_an_adapter_in_the_head_is_known(tmp_path, targets, head):
    assert trains_head(adapter(tmp_path, target_modules=targets)) is head

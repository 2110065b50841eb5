"""A hook that asks `past_key_values` where a pass stands writes nothing while decoding: since 5.24
the model is given its cache as `cache`, so every decoding step looks like the start of a text.
Reading `kwargs.get("cache", kwargs.get("past_key_values"))`, or `position_ids`, is right.

Needs: transformers==5.24.0
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, eos_token_id=None)
)  # fmt: skip
written, past = [], 0


def ask(_module, _args, kwargs):
    global past
    cache = kwargs.get("past_key_values")
    past = 0 if cache is None else cache.get_seq_length()


def write(_module, _args, output):
    late = past + torch.arange(output.shape[1]) >= 5  # the answer: all that follows the prompt
    written.append(int(late.sum()))
    return output + late[:, None] * torch.ones(16)


model.register_forward_pre_hook(ask, with_kwargs=True)
model.model.layers[0].register_forward_hook(write)
model.generate(torch.arange(5)[None], max_new_tokens=4, do_sample=False, pad_token_id=0)
print("tokens written per pass:", written, "right:", [0, 1, 1, 1])
raise SystemExit(written != [0, 1, 1, 1])

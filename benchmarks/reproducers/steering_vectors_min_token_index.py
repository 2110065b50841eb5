"""steering-vectors with `min_token_index` (or `token_indices`) counts from the start of each pass:
in cached generation a decoding step is a pass of one token at index 0, so "from token 5 on" writes
nothing of the answer. The maintainer describes this in the project's issue 60.

Needs: steering-vectors==0.12.2 transformers==4.57.6
"""

import torch
from steering_vectors import SteeringVector
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, eos_token_id=None,
                initializer_range=0.2)
)  # fmt: skip
vector = SteeringVector(layer_activations={0: 2 * torch.randn(16)}, layer_type="decoder_block")
ids = torch.arange(5)[None]


def answer(cached):
    return model.generate(ids, max_new_tokens=8, do_sample=False, use_cache=cached, pad_token_id=0,
                          attention_mask=torch.ones_like(ids))[0, 5:].tolist()  # fmt: skip


plain = answer(cached=True)
with vector.apply(model, min_token_index=5):
    cached, uncached = answer(cached=True), answer(cached=False)
print("unsteered:", plain)
print("from token 5 on, cached:", cached, "right (as without a cache):", uncached)
raise SystemExit(cached == plain != uncached)

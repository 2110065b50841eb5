"""A hook that writes `output[0]` steers the first row of a batch only: blocks of Transformers
return a tensor where they once returned a tuple, so `output[0]` is row 0. No error is raised.

Needs: transformers==5.23.0
"""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1)
)  # fmt: skip
ids = torch.arange(5).repeat(2, 1)  # the same text twice


def write(_module, _args, output):
    output[0][:] += torch.ones(16)  # where the block returns a tuple this is every row


with torch.no_grad():
    before = model(ids).logits
    model.model.layers[0].register_forward_hook(write)
    moved = (model(ids).logits - before).abs().amax((1, 2)) > 0
print("rows that changed:", moved.tolist(), "right:", [True, True])
raise SystemExit(not moved.all())

"""pyvene removes every forward hook in the model before it runs, not its own alone: once an
IntervenableModel has generated, a hook of yours, and so the vector that it adds, is gone without a
word.

Needs: pyvene==0.1.8 transformers==4.57.6
"""

import pyvene
import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, eos_token_id=None)
)  # fmt: skip
ids = {"input_ids": torch.arange(5)[None]}
with torch.no_grad():
    plain = model(**ids).logits
    model.model.layers[0].register_forward_hook(lambda _m, _a, out: out + torch.ones(16))
    steered = model(**ids).logits
    component = {"component": "model.layers[1].output", "intervention": lambda base, source: base}
    pyvene.IntervenableModel(component, model).generate(ids, max_new_tokens=1, pad_token_id=0)
    after = model(**ids).logits
moved = [bool((logits - plain).abs().max() > 0) for logits in (steered, after)]
print("the hook steers before:", moved[0], "after:", moved[1])
raise SystemExit(moved != [True, True])

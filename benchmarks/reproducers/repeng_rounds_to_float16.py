"""repeng up to 0.3.1 rounds a control vector to float16 whatever the model computes in: what is
added is off by up to one part in 2,000, and infinite above 65,504. From 0.4.0 on it has the model's
number format.

Needs: repeng==0.3.1 transformers==4.57.6
"""

import numpy as np
import torch
from repeng import ControlModel, ControlVector
from transformers import LlamaConfig, LlamaForCausalLM

model = LlamaForCausalLM(
    LlamaConfig(vocab_size=64, hidden_size=4, intermediate_size=8, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1)
)  # fmt: skip
ids, seen = torch.arange(5)[None], []
model.model.layers[1].register_forward_pre_hook(lambda _m, args: seen.append(args[0][0, -1]))
given = np.array([0.1, 1 / 3, 3.3, 70_000.0], dtype=np.float32)
control = ControlModel(model, [0])
with torch.no_grad():
    control(ids)
    control.set_control(ControlVector(model_type="llama", directions={0: given}), 1.0)
    control(ids)
added = (seen[1] - seen[0]).numpy()
print("model in", model.dtype, "given:", given.tolist(), "added:", added.tolist())
raise SystemExit(not np.allclose(added, given, rtol=1e-5))

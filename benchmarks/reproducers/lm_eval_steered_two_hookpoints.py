"""lm-eval's `steered` with vectors at two hook points adds the last one at both, in releases up to
0.4.9.1: the functions of action "add" share the variables of the loop that makes them. From 0.4.9.2
on each has its own.

Needs: lm-eval==0.4.9.1 transformers==4.57.6
"""

import tempfile

import torch
from lm_eval.models.hf_steered import SteeredModel
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
words = Tokenizer(models.WordLevel({str(i): i for i in range(64)}, unk_token="0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="1", pad_token="1")
vectors = {"layers.0": torch.full((16,), 1.0), "layers.1": torch.full((16,), 5.0)}
given = {name: dict(action="add", steering_vector=v, steering_coefficient=1.0, bias=None)
         for name, v in vectors.items()}  # fmt: skip
with tempfile.NamedTemporaryFile(suffix=".pt") as file:
    torch.save(given, file.name)
    lm = SteeredModel(LlamaForCausalLM(config), file.name, tokenizer=tokenizer, device="cpu",
                      backend="causal")  # fmt: skip
added = {name: float(f(torch.zeros(1, 1, 16)).mean()) for name, f in lm.hook_to_steer.items()}
print("added at each hook point:", added, "right:", {"layers.0": 1.0, "layers.1": 5.0})
raise SystemExit(added != {"layers.0": 1.0, "layers.1": 5.0})

"""A TransformerBridge forgets the prompt while it generates with a key-value cache: its attention
looks for the cache as `past_key_values`, and since Transformers 5.24 is handed it as `cache`. The
text is another one, steered or not, and nothing is raised. `use_past_kv_cache=False` is right.

Needs: transformer-lens==4.3.0 transformers==5.24.0
"""

import tempfile

import torch
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=1,
                     initializer_range=0.2)  # fmt: skip
words = Tokenizer(models.WordLevel({str(i): i for i in range(64)}, unk_token="0"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="1", eos_token="2",
                                    pad_token="2")  # fmt: skip
with tempfile.TemporaryDirectory() as folder:
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    bridge = TransformerBridge.boot_transformers(folder)
    ids = torch.arange(5, 13)[None]
    cached, uncached = (
        bridge.generate(ids, max_new_tokens=6, do_sample=False, stop_at_eos=False, verbose=False,
                        use_past_kv_cache=cache, return_type="tokens")[0, 8:].tolist()
        for cache in (True, False)
    )  # fmt: skip
print("with a cache:", cached, "without:", uncached)
raise SystemExit(cached != uncached)

"""TransformerBridge.generate with a hook function at the output of the block."""

import contextlib
import inspect

from seen import TorchPath, load, tokenizer

PACKAGES = ("transformer-lens", "transformers")
WAY = '`bridge.hooks(fwd_hooks=[("blocks.L.hook_out", add)])` around `bridge.generate`'
FIRST_WRITTEN = 0


class Path(TorchPath):
    def set_up(self) -> None:
        from transformer_lens.model_bridge import TransformerBridge

        self.bridge = TransformerBridge.boot_transformers(
            str(self.job.folder), hf_model=load(self.job), tokenizer=tokenizer(self.job)
        )
        self.model = self.bridge.original_model

    def generate(self, ids, mask, cached: bool):
        with self.hooked():
            return self.tokens(ids, mask, cached)[:, -self.job.n_new :]

    def hooked(self):
        if not self.steered:
            return contextlib.nullcontext()
        name = f"blocks.{self.job.block}.hook_out"
        return self.bridge.hooks(fwd_hooks=[(name, lambda resid, hook: resid + self.step)])

    def tokens(self, ids, mask, cached: bool):
        # Older releases have no mask to be told, and find none in the tokens.
        knows = "attention_mask" in inspect.signature(self.bridge.generate).parameters
        masked = {"attention_mask": mask} if knows and not mask.all() else {}
        return self.bridge.generate(
            ids,
            max_new_tokens=self.job.n_new,
            stop_at_eos=False,
            do_sample=False,
            use_past_kv_cache=cached,
            return_type="tokens",
            verbose=False,
            **masked,
        )

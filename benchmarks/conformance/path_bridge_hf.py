"""TransformerBridge.hf_generate, which hands on to `generate` of Transformers."""

import path_bridge

PACKAGES = path_bridge.PACKAGES
WAY = '`bridge.hooks(fwd_hooks=[("blocks.L.hook_out", add)])` around `bridge.hf_generate`'
FIRST_WRITTEN = 0


class Path(path_bridge.Path):
    def tokens(self, ids, mask, cached: bool):
        return self.bridge.hf_generate(
            ids,
            max_new_tokens=self.job.n_new,
            stop_at_eos=False,
            do_sample=False,
            use_past_kv_cache=cached,
            return_type="tokens",
            attention_mask=mask,
            **({} if cached else {"use_cache": False}),
        )

"""A hook that leaves the first token alone, and asks `past_key_values` where a pass stands."""

import torch
from seen import TorchPath, added, blocks, load

PACKAGES = ("transformers",)
WAY = (
    "`register_forward_hook(..., with_kwargs=True)` on the model and the block; writes every "
    "position but 0, where the first position of a pass is `past_key_values.get_seq_length()`"
)
FIRST_WRITTEN = 1


class Path(TorchPath):
    past = 0

    def set_up(self) -> None:
        self.model = load(self.job)
        if self.steered:
            block = blocks(self.model, self.job.family)[self.job.block]
            self.model.register_forward_pre_hook(self.ask, with_kwargs=True)
            block.register_forward_hook(self.write)

    def ask(self, _module, _args, kwargs) -> None:
        cache = kwargs.get("past_key_values")
        self.past = 0 if cache is None else cache.get_seq_length()

    def write(self, _module, _args, output):
        resid = output[0] if isinstance(output, tuple) else output
        positions = self.past + torch.arange(resid.shape[1])
        return added(output, (positions > 0)[:, None] * self.step)

"""Hugging Face `generate` with a forward hook on the block, as most papers' code writes it."""

from seen import TorchPath, added, blocks, load

PACKAGES = ("transformers",)
WAY = "`register_forward_hook` on the block; the hook returns its output plus the vector"
FIRST_WRITTEN = 0


class Path(TorchPath):
    def set_up(self) -> None:
        self.model = load(self.job)
        if self.steered:
            block = blocks(self.model, self.job.family)[self.job.block]
            block.register_forward_hook(lambda _module, _args, output: added(output, self.step))

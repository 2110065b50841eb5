"""The same with a hook that changes `output[0]`, as code for blocks that return tuples does."""

from seen import TorchPath, blocks, load

PACKAGES = ("transformers",)
WAY = "`register_forward_hook` on the block; the hook does `output[0][:] += vector`"
FIRST_WRITTEN = 0


class Path(TorchPath):
    def set_up(self) -> None:
        self.model = load(self.job)
        if self.steered:
            block = blocks(self.model, self.job.family)[self.job.block]
            block.register_forward_hook(self.write)

    def write(self, _module, _args, output):
        output[0][:] += self.step

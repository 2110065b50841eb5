"""nnsight: the block's output is written in a `generate` trace, at every step."""

from importlib.metadata import version

from seen import TorchPath, block_name, load, tokenizer

PACKAGES = ("nnsight", "transformers")
WAY = (
    "`with lm.generate(...) as tracer`, and there `block.output[:] = block.output + vector` at "
    "every step: `for _ in tracer.iter[:n]` (before 0.8 `with`, before 0.5 `with block.all()`)"
)
FIRST_WRITTEN = 0


class Path(TorchPath):
    def set_up(self) -> None:
        import torch
        from nnsight import LanguageModel

        self.model = load(self.job)
        seen = []
        block = self.model.get_submodule(block_name(self.job))
        handle = block.register_forward_hook(lambda _m, _a, out: seen.append(type(out)))
        with torch.no_grad():
            self.model(torch.tensor([[2]]))
        handle.remove()
        self.is_tuple = seen[0] is tuple
        self.lm = LanguageModel(self.model, tokenizer=tokenizer(self.job))

    def generate(self, ids, mask, cached: bool):
        lm, step, n_new = self.lm, self.step, self.job.n_new
        release = tuple(map(int, version("nnsight").split(".")[:2]))
        block = lm
        for name in block_name(self.job).split("."):
            block = block[int(name)] if name.isdigit() else getattr(block, name)
        given = dict(
            max_new_tokens=self.job.n_new,
            do_sample=False,
            use_cache=cached,
            pad_token_id=self.job.pad,
        )
        inputs = {"input_ids": ids, "attention_mask": mask}
        if not self.steered:
            with lm.generate(inputs, **given):
                whole = lm.generator.output.save()
        elif release < (0, 5):
            with lm.generate(inputs, **given):
                with block.all():
                    if self.is_tuple:
                        block.output[0][:] = block.output[0] + step
                    else:
                        block.output[:] = block.output + step
                whole = lm.generator.output.save()
        elif release < (0, 8):
            with lm.generate(inputs, **given) as tracer:
                with tracer.iter[:n_new]:
                    if self.is_tuple:
                        block.output[0][:] = block.output[0] + step
                    else:
                        block.output[:] = block.output + step
                whole = lm.generator.output.save()
        else:
            with lm.generate(inputs, **given) as tracer:
                for _ in tracer.iter[:n_new]:
                    if self.is_tuple:
                        block.output[0][:] = block.output[0] + step
                    else:
                        block.output[:] = block.output + step
                whole = tracer.result.save()
        whole = getattr(whole, "value", whole)
        return whole[:, ids.shape[1] :]

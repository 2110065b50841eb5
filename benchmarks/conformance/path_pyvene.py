"""pyvene: an AdditionIntervention at the block's output, at every position."""

from seen import TorchPath, block_name, load

PACKAGES = ("pyvene", "transformers")
WAY = (
    "`IntervenableModel` with a function at the block's output, then "
    "`generate(..., unit_locations=None, intervene_on_prompt=True)`"
)
FIRST_WRITTEN = 0


class Path(TorchPath):
    hooks_are_kept = False

    def set_up(self) -> None:
        import pyvene

        self.model = load(self.job)
        step = self.step if self.steered else 0 * self.step

        def add(base, source, **_):
            return base + step

        component = f"{block_name(self.job)}.output"
        self.pv = pyvene.IntervenableModel(
            {"component": component, "intervention": add}, self.model
        )

    def generate(self, ids, mask, cached: bool):
        _, whole = self.pv.generate(
            {"input_ids": ids, "attention_mask": mask},
            unit_locations=None,
            intervene_on_prompt=True,
            max_new_tokens=self.job.n_new,
            do_sample=False,
            use_cache=cached,
            pad_token_id=self.job.pad,
        )
        return whole[:, ids.shape[1] :]

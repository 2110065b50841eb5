"""What runs in a worker of vLLM: hooks on its blocks that edit and read the tokens of requests.

Nothing here logs an error and goes on: whatever an edit raises ends the pass and reaches the
caller, and a pass in which an edit was left out is itself an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from persona.errors import ModelError, SteeringError
from persona.models.scorers import TextScores
from persona.vllm.block_sites import block_sites
from persona.vllm.edit_sets import PlacedEdit, PlacedSet
from persona.vllm.next_tokens import NextTokens
from persona.vllm.pooled_reading import PooledReading
from persona.vllm.refusals import require_what_was_tested
from persona.vllm.running_pass import Group, Span, groups_of, spans_of_pass
from persona.vllm.scored_tokens import ScoredTokens, head_of

HANDED_ON = "handed on"


@dataclass(frozen=True)
class Step:
    """What one pass did with one request: its tokens from `first` on, of which so many were
    written by its edits."""

    first: int
    n_tokens: int
    n_written: int


@dataclass
class Active:
    """A set of edits that is on.

    by_hook: the edits of this worker's blocks. groups: the rows of the running pass they write.
    fired: the hooks that wrote in the running pass.
    """

    edits: PlacedSet
    by_hook: dict[str, list[PlacedEdit]]
    groups: list[Group] = field(default_factory=list)
    fired: set[str] = field(default_factory=set)

    @property
    def n_written(self) -> int:
        return sum(group.n_written for group in self.groups)


class WorkerRoom:
    """The hooks of one worker; a pipeline stage hooks the blocks that it holds."""

    def __init__(self, worker: Any) -> None:
        require_what_was_tested(worker)
        self.runner, self.device = worker.model_runner, worker.device
        config = worker.model_config.hf_text_config
        self.n_layers, self.d_model = config.num_hidden_layers, config.hidden_size
        model = worker.model_runner.get_model()
        self.sites = block_sites(model, self.n_layers)
        self.sets: dict[str, Active] = {}
        self.steps: dict[int, list[Step]] = {}
        self.reading: PooledReading | None = None
        self.scoring: ScoredTokens | NextTokens | None = None
        self.head = head_of(model)
        self.probed: dict[str, list[Tensor]] | None = None
        self.ends: list[Tensor] = []
        self.hands_on = False
        model.register_forward_pre_hook(self._begin, with_kwargs=True)
        model.register_forward_hook(self._end)
        for name, site in self.sites.items():
            site.register(partial(self._at, name))

    def describe(self) -> dict[str, Any]:
        """The hooks of this worker, and the shape of the model."""
        return {"sites": list(self.sites), "n_layers": self.n_layers, "d_model": self.d_model}

    def put_on(self, sets: Mapping[str, PlacedSet]) -> None:
        """Edit requests from now on, each by the set it names; and note what every pass does."""
        self.steps = {}
        self.sets = {}
        for name, edits in sets.items():
            by_hook: dict[str, list[PlacedEdit]] = defaultdict(list)
            for edit in edits.edits:
                if edit.hook_name in self.sites:
                    by_hook[edit.hook_name].append(edit)
            self.sets[name] = Active(edits, dict(by_hook))

    def take_off(self) -> dict[int, list[Step]]:
        """End all edits; by request, what each pass did."""
        steps, self.sets, self.steps = self.steps, {}, {}
        return steps

    def read(self, reading: PooledReading | None) -> None:
        """Pool the activations of requests from now on, or with None no longer."""
        self.reading = reading

    def collect(self) -> dict[int, dict[str, Tensor]]:
        """By request and hook, what was pooled."""
        return {} if self.reading is None else self.reading.pooled()

    def score(self, scoring: ScoredTokens | NextTokens | None) -> None:
        """Score the tokens of requests, or what may follow them, or with None no longer."""
        self.scoring = scoring

    def scored(self) -> dict[int, TextScores] | dict[int, Tensor]:
        """By request, what was made of it; empty where another stage holds the head."""
        return {} if self.scoring is None else self.scoring.scored()

    def probe(self, on: bool) -> dict[str, float]:
        """Keep everything of the next pass, or say by place how far its parts are from adding up.

        Of a block: |before + attention + MLP - after| over |before| + |after|. Of the stream
        between two blocks: the same of what one hands on and the next is given. The largest of
        all tokens; infinity where the pass did not come by. Of two passes, the second one handed
        on: how far their ends are apart (`HANDED_ON`), and nothing else.
        """
        found: dict[str, float] = {}
        if not on and len(self.ends) == 2:
            found = {HANDED_ON: _apart([self.ends[0]], self.ends[1])}
        elif not on:
            found = _sums(self.probed or {}, self.n_layers, self.sites)
        self.probed = defaultdict(list) if on else None
        self.ends, self.hands_on = [], False
        return found

    def hand_on(self, on: bool) -> None:
        """Put the stream behind every block in its own place from now on, as an edit would."""
        self.hands_on = on

    def _begin(self, model: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        for active in self.sets.values():
            active.groups, active.fired = [], set()
        self.spans: list[Span] = []
        positions = kwargs["positions"] if "positions" in kwargs else args[1]
        self.spans = spans_of_pass(self.runner, positions)
        if not self.spans:
            return
        mine: dict[str, list[Span]] = defaultdict(list)
        for span in self.spans:
            if name := span.told.get("edits"):
                if name not in self.sets:
                    raise SteeringError(f"a request names the edits {name!r}, which are not on")
                mine[name].append(span)
        n_all = self.spans[-1].end
        is_written = torch.zeros(n_all, dtype=torch.bool)
        for name, spans in mine.items():
            active = self.sets[name]
            groups = groups_of(spans, active.edits.written, active.edits.rows, n_all, self.device)
            active.groups = [group for group in groups if group.n_written]
            for group in active.groups:
                is_written[group.put.cpu()] = True
        for span in self.spans:
            if "request" in span.told:
                n_written = int(is_written[span.start : span.end].sum())
                step = Step(span.first, len(span), n_written)
                self.steps.setdefault(span.told["request"], []).append(step)

    def _at(self, name: str, h: Tensor) -> Tensor | None:
        if not self.spans:
            return None
        n_all = self.spans[-1].end
        if self.probed is not None:
            self.probed[name].append(h[:n_all].clone())
        edited = None
        for active in self.sets.values():
            if active.groups and name in active.by_hook:
                if edited is None:
                    edited = h.clone()  # of vLLM's own buffers none is written
                for group in active.groups:
                    _edit(edited[:n_all], group, active.by_hook[name])
                active.fired.add(name)
        if self.hands_on and name.endswith("hook_resid_post"):
            edited = h.clone()
        if self.reading is not None:
            self.reading.see(name, (h if edited is None else edited)[:n_all], self.spans)
        return edited

    def _end(self, model: Any, args: Any, output: Any) -> None:
        if not self.spans:
            return
        for active in self.sets.values():
            for name in active.by_hook if active.n_written else ():
                if name not in active.fired:
                    label = active.by_hook[name][0].label
                    raise SteeringError(
                        f"the edit '{label}' at {name} did not fire in a pass of vLLM that has "
                        f"{active.n_written} tokens to write"
                    )
        if isinstance(output, Tensor):
            rows = output.reshape(-1, output.shape[-1])[: self.spans[-1].end]
            if not bool(rows.isfinite().all()):
                raise ModelError(
                    f"the model's activations are not finite in vLLM ({rows.dtype}); its weights "
                    "are damaged, an edit is too strong, or the number format is too narrow for it "
                    "(--dtype float32)"
                )
            if self.probed is not None:
                self.ends.append(rows.float().clone())
            if self.scoring is not None:
                self.scoring.see(rows, self.spans, self.head)


def _edit(h: Tensor, group: Group, edits: list[PlacedEdit]) -> None:
    """Write a group's rows of `h` [token d_model] in place."""
    rows = (h if group.take is None else h[group.take.flatten()]).reshape(*group.shape, -1)
    for edit in edits:
        new = edit.apply(rows)
        if new.shape != rows.shape:
            raise SteeringError(
                f"the edit '{edit.label}' at {edit.hook_name} made {tuple(new.shape)} of "
                f"{tuple(rows.shape)}"
            )
        rows = new if group.everything else torch.where(group.mask[..., None], new, rows)
    h[group.put] = rows[group.mask].to(h.dtype)


def _sums(
    seen: Mapping[str, list[Tensor]], n_layers: int, sites: Mapping[str, Any]
) -> dict[str, float]:
    """See `WorkerRoom.probe`."""

    def at(layer: int, name: str) -> Tensor | None:
        found = seen.get(f"blocks.{layer}.{name}")
        return torch.cat(found).float() if found else None

    found = {}
    for layer in range(n_layers):
        if f"blocks.{layer}.hook_resid_post" not in sites:
            continue
        before, after = at(layer, "hook_resid_pre"), at(layer, "hook_resid_post")
        below = at(layer - 1, "hook_resid_post") if layer else None
        parts = [at(layer, "hook_attn_out"), at(layer, "hook_mlp_out")]
        found[f"blocks.{layer}.writes"] = _apart([before, *parts], after)
        if below is not None:
            found[f"blocks.{layer}.hook_resid_pre"] = _apart([below], before)
    return found


def _apart(parts: list[Tensor | None], whole: Tensor | None) -> float:
    if whole is None or any(part is None or part.shape != whole.shape for part in parts):
        return float("inf")
    terms = [part for part in parts if part is not None]
    rest = torch.stack(terms).sum(0) - whole
    size = terms[0].norm(dim=-1) + whole.norm(dim=-1)
    # A pad token's embedding may be zero, and so may all that comes of it.
    return float((rest.norm(dim=-1) / size.clamp(min=torch.finfo(size.dtype).tiny)).max())

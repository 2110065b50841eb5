"""Two models side by side: the aligned one and its fine-tune.

`ModelPair.active("finetuned")` hands out a TransformerBridge. For a LoRA fine-tune both sides are
one bridge whose adapter is switched, so one copy of the weights serves both.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from persona.data.types import Dialogue, Turn
from persona.errors import ModelError
from persona.models.chat.chat_format import ChatFormat
from persona.models.hooks import InContext, is_bridge, resid_post
from persona.models.readers import Reader, read_by
from persona.models.samplers import Sampler, sampled_by
from persona.models.space import ActivationSpace

Side = Literal["aligned", "finetuned"]
SIDES: tuple[Side, Side] = ("aligned", "finetuned")
OpenSide = Callable[[Side], contextlib.AbstractContextManager[Any]]


@dataclass
class ModelPair:
    """An aligned model and its fine-tune, with one tokenizer and one chat format.

    open_side: side -> context manager that yields its TransformerBridge, its weights active.
    one_copy_of_weights: never two models in memory at once.
    names, revisions: what the person called each side, and the content hash or hub commit.
    weights: format of quantised weights, None where they are held as `dtype`.
    loaded_in_turn: opening the other side frees this one and reads the disk.
    notes: what differs between the two sides, and other things a reader must know.
    reload: loads the same pair again, None where it was made by hand. A pair travels to another
        process as this, and is loaded there; see `PairRecipe`.
    bare: the aligned Hugging Face model over the weights that are held, which nobody runs: another
        fine-tune of it can be put on a copy; see `load_pair(beside=)`. None where weights are not
        shared.
    fingerprints: `Source.fingerprint` of each side: weights, configs, tokenizer and template.
    sampler: an engine that writes the answers in place of the bridges, such as
        `persona.vllm.vllm_sampler(pair)`; None for their own `generate`. It stays behind where the
        pair travels to another process.
    reader: an engine that reads pooled activations in place of the bridges, which the same one can
        do; None for this process. It stays behind too.
    """

    open_side: OpenSide
    n_layers: int
    d_model: int
    one_copy_of_weights: bool
    chat: ChatFormat
    names: dict[Side, str]
    revisions: dict[Side, str]
    dtype: torch.dtype
    device: torch.device
    weights: str | None = None
    loaded_in_turn: bool = False
    notes: list[str] = field(default_factory=list)
    reload: Callable[[], ModelPair] | None = None
    fingerprints: dict[Side, str] = field(default_factory=dict)
    sampler: Sampler | None = None
    reader: Reader | None = None
    bare: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Callable[..., ModelPair], tuple[Any, ...]]:
        if self.reload is None:
            raise ModelError(
                f"the pair of {self.names['aligned']} was put together by hand and cannot be "
                "loaded by another process; make it with load_pair"
            )
        return loaded_elsewhere, (self.reload, self.revisions)

    def files(self, side: Side) -> str:
        """What readings of a side depend on: its revision and, where it is known, the small files.

        A stage or a shard that was made under another value is made anew.
        """
        return f"{self.revisions[side]} {self.fingerprints.get(side, '')}".strip()

    @property
    def precision(self) -> str:
        """Number format of the activations, and of the weights where it is another.

        Readings of two precisions never stand for each other.
        """
        name = str(self.dtype).removeprefix("torch.")
        return name if self.weights is None else f"{name}, weights {self.weights}"

    @property
    def tokenizer(self) -> Any:
        return self.chat.tokenizer

    @contextlib.contextmanager
    def active(self, side: Side) -> Iterator[Any]:
        """Yield the TransformerBridge of one side, in evaluation mode."""
        if side not in SIDES:
            raise ModelError(f"a pair has the sides 'aligned' and 'finetuned'; got {side!r}")
        with (
            self.open_side(side) as bridge,
            sampled_by(bridge, self.sampler, side),
            read_by(bridge, self.reader, side),
        ):
            yield bridge

    def ask(
        self,
        question: str | Dialogue,
        side: Side = "aligned",
        *,
        intervene: InContext | None = None,
        max_new_tokens: int = 60,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> str:
        """What one side answers, in its chat format; greedy unless told otherwise.

        question: what the user asks, or a dialogue that waits for an answer.
        intervene: bridge -> context manager under which it answers: `steering.restore(vector)`
            and the other edits are such.
        The answer ends where the model ends its turn, or after `max_new_tokens`.
        Raises: ModelError for another side, or an `intervene` that cannot be called; DataError
            where the question fills the context.
        """
        # Sampling knows of pairs; a pair knows of sampling only once it is asked.
        from persona.models.sampling import sample_answers

        if intervene is not None and not callable(intervene):
            raise ModelError(
                "intervene takes what steering.restore, add or ablate give, or "
                f"steering.edits.steered_by(edits); got {type(intervene).__name__}"
            )
        if isinstance(question, str):
            question = Dialogue((Turn("user", question),), "the question")
        with self.active(side) as bridge:
            if not is_bridge(bridge):
                raise ModelError(
                    "a pair of models that were not wrapped does not answer; make it without "
                    "wrap=False, or call the model's own generate"
                )
            [answer] = sample_answers(
                bridge,
                self.chat,
                [question],
                intervene=intervene,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                description="Answering",
            )
        return answer

    def space(self, layer: int) -> ActivationSpace:
        """The activation space of one block's output in this pair.

        Raises: ModelError when the layer is outside 0 .. n_layers - 1.
        """
        if not 0 <= layer < self.n_layers:
            raise ModelError(
                f"layer {layer} is out of range: {self.names['aligned']} has blocks 0 to "
                f"{self.n_layers - 1}"
            )
        return ActivationSpace(
            model=self.names["aligned"],
            revision=self.revisions["aligned"],
            hook_name=resid_post(layer),
            layer=layer,
            d_model=self.d_model,
            chat_template_hash=self.chat.template_hash,
        )


def loaded_elsewhere(reload: Callable[[], ModelPair], revisions: dict[Side, str]) -> ModelPair:
    """The pair that another process described.

    Raises: ModelError where the names lead to other weights on this machine, or as `load_pair`.
    """
    pair = reload()
    for side in SIDES:
        if pair.revisions[side] != revisions[side]:
            raise ModelError(
                f"{pair.names[side]} on {platform.node()} has the weights {pair.revisions[side]}, "
                f"but the run began with {revisions[side]}; put the same files on every machine"
            )
    return pair

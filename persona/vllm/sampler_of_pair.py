"""vLLM answers for both sides of a pair, scores and reads them: `--sampler vllm`, `--reader vllm`.

With a LoRA adapter one engine serves both sides; two whole checkpoints are two engines, of which
one is held at a time. The pair itself stays in memory too, for what is read of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from persona.errors import EngineError, SteeringError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import InContext
from persona.models.load import PairRecipe
from persona.models.pair import ModelPair, Side
from persona.models.samplers import AnswerRequest, TextRequest
from persona.models.scorers import TextScores
from persona.models.sources import resolve, shipped_or_ref
from persona.vllm.edit_sets import EditSet
from persona.vllm.installed import require_vllm
from persona.vllm.lora_limits import rank_for, trains_head
from persona.vllm.one_engine import OneEngine
from persona.vllm.read_by_vllm import sets_by_vllm
from persona.vllm.refusals import require_options
from persona.vllm.vllm_engine import VllmEngine


class VllmSampler:
    """The engines of a pair, started when they are first asked; a process holds one at a time.

    aligned, finetuned: folders of checkpoints. adapter: in place of the second, on the first.
    dtype, max_length, options: as in `VllmEngine`.
    """

    def __init__(
        self,
        aligned: Path,
        finetuned: Path | None,
        adapter: Path | None,
        *,
        dtype: str,
        max_length: int | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        installed = require_vllm()
        self.name = f"vllm {installed.version}"
        require_options(options or {}, installed.distribution)
        if adapter is not None:
            rank_for(adapter)
        self._adapts_head = adapter is not None and trains_head(adapter)
        self._folders: dict[Side, Path | None] = {"aligned": aligned, "finetuned": finetuned}
        self._adapter = adapter
        self._loading: dict[str, Any] = {
            "dtype": dtype,
            "max_length": max_length,
            "options": options,
        }
        self._engine = OneEngine()

    @property
    def mixes_sides(self) -> bool:
        """Whether one engine, with the adapter, serves both sides."""
        return self._adapter is not None

    def engine(self, side: Side) -> VllmEngine:
        """The engine that holds a side; it takes the place of one that does not, or has ended."""
        folder = self._folders[side if self._adapter is None else "aligned"]
        if folder is None:
            raise EngineError(f"there is no {side} model for vLLM to load")
        return self._engine.of(folder, lambda: VllmEngine(folder, self._adapter, **self._loading))

    def _engine_and_sides(self, requests: Sequence[TextRequest]) -> tuple[VllmEngine, list[Side]]:
        """The engine of these requests, and which of its sides each one asks."""
        sides = [one.side for one in requests]
        if self.mixes_sides:
            return self.engine("aligned"), sides
        if len(set(sides)) > 1:
            raise EngineError(
                "two checkpoints are two engines in vLLM: ask one side of the pair after the other"
            )
        return self.engine(sides[0]), ["aligned"] * len(sides)

    def close(self) -> None:
        """Let go of the engine; it starts anew when it is asked again."""
        self._engine.close()

    def answers(
        self,
        requests: Sequence[AnswerRequest],
        *,
        batches: Sequence[Sequence[int]] = (),
        description: str = "Sampling answers",
    ) -> list[list[int]]:
        """As `persona.models.samplers.Sampler`.

        Raises: SteeringError for an intervention that cannot cross to a worker, or as `steer`;
            EngineError for both sides at once where they are two engines, or as vLLM ends.
        """
        if not requests:
            return []
        edits, rows = _edits_of([one.intervene for one in requests], batches)
        engine, sides = self._engine_and_sides(requests)
        written = engine.sample(
            [one.ids for one in requests],
            side=sides,
            edits=edits,
            rows=rows,
            max_new_tokens=[one.room for one in requests],
            temperature=[one.temperature for one in requests],
            seed=[one.seed for one in requests],
            ends=[one.ends for one in requests],
            description=description,
        )
        return [answer.ids for answer in written]

    def scores_side(self, side: Side) -> bool:
        """As `persona.models.scorers.Scorer`; an adapter on the head is not on for scores."""
        return side == "aligned" or not self._adapts_head

    def scores(
        self, requests: Sequence[TextRequest], n_likeliest: int = 0, description: str = "Scoring"
    ) -> list[TextScores]:
        """As `persona.models.scorers.Scorer`; in float32 within 1e-4 nats.

        Raises: as `answers`.
        """
        if not requests:
            return []
        edits, _ = _edits_of([one.intervene for one in requests], ())
        engine, sides = self._engine_and_sides(requests)
        return engine.scores(
            [one.ids for one in requests],
            n_likeliest=n_likeliest,
            side=sides,
            edits=edits,
            description=description,
        )

    def means(
        self,
        side: Side,
        dialogues: Sequence[TokenizedDialogue],
        token_sets: Sequence[str],
        layers: Sequence[int],
        description: str,
    ) -> Tensor:
        """As `persona.models.readers.Reader`; float32 apart by 1e-5 of an activation's size."""
        return sets_by_vllm(
            self.engine(side),
            dialogues,
            token_sets,
            layers,
            side="aligned" if self._adapter is None else side,
            description=description,
        )


def vllm_sampler(pair: ModelPair, options: Mapping[str, Any] | None = None) -> VllmSampler:
    """What `pair.sampler` is set to, for vLLM to write its answers, and `pair.reader`, for it to
    read what is pooled of texts.

    options: of `vllm.LLM`, handed through, such as {"tensor_parallel_size": 8}.
    Raises: EngineError where vLLM is missing or another version, for a pair that was made of
        models in memory, for weights held in 8 or 4 bits, and as `VllmEngine` for options and
        adapters.
    """
    recipe = pair.reload
    if not isinstance(recipe, PairRecipe):
        raise EngineError(
            "vLLM loads models from files, and this pair was made of models in memory; save them "
            "and use load_pair"
        )
    if pair.weights is not None:
        raise EngineError(
            f"vLLM does not hold weights as {pair.weights} as this pair does; take --dtype "
            "bfloat16 or float32, or leave --sampler at generate"
        )
    base, tuned = resolve(recipe.aligned), resolve(shipped_or_ref(recipe.finetuned))
    adapter = tuned.path if tuned.kind == "adapter" else None
    return VllmSampler(
        base.path,
        None if adapter is not None else tuned.path,
        adapter,
        dtype=str(pair.dtype).removeprefix("torch."),
        max_length=pair.chat.max_length,
        options=options,
    )


def _edits_of(
    intervenes: Sequence[InContext | None], batches: Sequence[Sequence[int]]
) -> tuple[list[EditSet | None], list[int]]:
    """The edits of each request, and its row among those that share one set."""
    sets = {id(one): EditSet.of(one) for one in intervenes if one is not None}
    edits = [None if one is None else sets[id(one)] for one in intervenes]
    rows = list(range(len(edits)))
    for whole in sets.values():
        for batch in batches if whole.rows is not None else ():
            mine = [place for place in batch if edits[place] is whole]
            if mine and len(mine) != whole.rows:
                raise SteeringError(
                    f"the edits have {whole.rows} coefficients, one for each row, but the batch "
                    f"has {len(mine)} rows"
                )
            its_own = replace(whole)  # another object: another set, with rows of its own
            for row, place in enumerate(mine):
                edits[place], rows[place] = its_own, row
    return edits, rows

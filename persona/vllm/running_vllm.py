"""One model running in vLLM: started, asked, and given up after its first error."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from persona.errors import DataError, EngineError, PersonaError
from persona.models.pair import Side
from persona.progress import counting
from persona.vllm.edit_sets import EditSet, placed, require_rows
from persona.vllm.installed import require_vllm
from persona.vllm.lora_limits import rank_for, trains_head
from persona.vllm.refusals import OURS, not_run_with, require_options
from persona.vllm.running_pass import TOLD
from persona.vllm.wire import pack, unpack
from persona.vllm.worker_room import HANDED_ON, Step
from persona.vllm.worker_sockets import WorkerSockets

logger = logging.getLogger("persona")

ENVIRONMENT = {
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "CRITICAL",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
}
"""Read by vLLM when it starts: the runner that is known here, in this process, so that an error of
an edit is raised as it is; no report of use to anybody; no pages of configuration beside an error,
which is one line here; no core taken from this process, and its threads left where they are."""

CPU_CACHE_TOKENS = 1 << 15
"""Tokens whose keys and values are kept at once on a CPU, unless told otherwise."""

CUT_OFF = ("Connection reset by peer", "Connection closed by peer")
"""What a worker says of another one that is gone; by themselves these are no word to a person."""

PROBE = 8
"""Tokens of the pass at the start that measures where attention and MLP write."""


class RunningVllm:
    """vLLM with one model, and the rooms of its workers; see `VllmEngine`.

    model, adapter: folders, as `persona.models.sources.resolve` finds them. dtype: float32,
    bfloat16 or float16. max_length: the longest text, default the model's context.
    options: of `vllm.LLM`, handed through: tensor_parallel_size, pipeline_parallel_size,
        distributed_executor_backend, gpu_memory_utilization, kv_cache_memory_bytes, ...
    Raises: EngineError where vLLM is missing, another version, or does not start; for an option
        that edits were not tested with, and for an adapter that vLLM does not take.
    """

    def __init__(
        self,
        model: str | Path,
        adapter: str | Path | None = None,
        *,
        dtype: str = "float32",
        max_length: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.installed = require_vllm()
        options = dict(options or {})
        require_options(options, self.installed.distribution)
        if untried := not_run_with(options):
            logger.warning(
                "%s is vLLM's own and this code was never run with it; what the passes at the "
                "start and the tokens of every step do not bear out ends in an error",
                " and ".join(untried),
            )
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        logging.getLogger("vllm").setLevel(logging.CRITICAL)
        chosen: dict[str, Any] = {"dtype": dtype, "disable_log_stats": True}
        if max_length is not None:
            chosen["max_model_len"] = max_length
        if adapter is not None:
            # A place for a second adapter stays empty: on a CPU, vLLM 0.30 takes the last place for
            # requests without one, and would put the adapter on the aligned rows of a mixed batch.
            chosen |= {
                "enable_lora": True,
                "max_loras": 2,
                "max_lora_rank": rank_for(Path(adapter)),
            }
        chosen |= _cache_on_cpu(Path(model), dtype, options.get("max_model_len", max_length))
        self.name = str(model)
        self._fault: str | None = None
        with self._one_clear_line("start"):
            from vllm import LLM

            self.llm: Any = LLM(str(model), **{**chosen, **options, **OURS})
            self._sockets = WorkerSockets(self.llm)
        self._adapter = self._lora(adapter)
        self.adapts_head = adapter is not None and trains_head(Path(adapter))
        ranks = self.call("describe")
        self.sites = frozenset(site for rank in ranks for site in rank["sites"])
        self.n_layers, self.d_model = int(ranks[0]["n_layers"]), int(ranks[0]["d_model"])
        self.untold = self._probe()
        self.sites -= self.untold
        self._require_that_edits_go_on()

    @property
    def usable(self) -> bool:
        """Whether it has not ended with an error, nor been closed."""
        return self._fault is None

    def close(self) -> None:
        """Let go of the model; an engine that is closed cannot be used again."""
        import gc

        if self.llm is None:
            return
        self._fault = self._fault or "it was closed"
        with contextlib.suppress(Exception):
            self.llm.llm_engine.engine_core.shutdown()
        self._sockets.close()
        self.llm = None
        gc.collect()

    def run(
        self,
        texts: Sequence[Sequence[int]],
        params: Sequence[Any],
        side: Side | Sequence[Side],
        edits: Sequence[EditSet | None],
        rows: Sequence[int] | None,
        begins: Sequence[int],
        description: str,
    ) -> tuple[list[Any], dict[int, list[Step]]]:
        """vLLM's outputs in the order of the texts, and what each pass did, by request.

        Raises: DataError for a text that vLLM was given no room for, before anything is run;
            SteeringError for edits that do not fit; EngineError where vLLM ends.
        """
        longest = self.llm.model_config.max_model_len
        if too_long := [len(text) for text in texts if len(text) >= longest]:
            raise DataError(
                f"a text has {max(too_long)} tokens, and vLLM was given room for {longest} with "
                "what it writes (max_model_len); nothing was run"
            )
        from vllm import TokensPrompt

        its_rows = list(range(len(texts)) if rows is None else rows)
        # Edits that are the same object are one set.
        names = {id(one): str(place) for place, one in enumerate(edits) if one is not None}
        sets = {}
        for one in {id(one): one for one in edits if one is not None}.values():
            mine = [row for row, its in zip(its_rows, edits, strict=True) if its is one]
            require_rows(one, mine)
            sets[names[id(one)]] = placed(one, self.sites, self.n_layers, self.d_model)
        for place, (params_of, edited) in enumerate(zip(params, edits, strict=True)):
            params_of.extra_args = {
                TOLD: {
                    "request": place,
                    "edits": "" if edited is None else names[id(edited)],
                    "row": its_rows[place],
                    "answer": begins[place],
                }
            }
        requests = [TokensPrompt(prompt_token_ids=list(text)) for text in texts]
        sides = [side] * len(texts) if isinstance(side, str) else list(side)
        lora = [self._adapter_of(one) for one in sides]
        self.call("put_on", sets)
        with self._one_clear_line("run"), counting(description, len(texts)) as advance:
            outputs = self.llm.generate(
                requests,
                list(params),
                lora_request=lora if any(lora) else None,
                # Asked first to walk through the prompts, then for a bar over the answers.
                use_tqdm=lambda them=None, **_: _Progress(advance) if them is None else them,
            )
        ranks = self.call("take_off")
        if any(rank != ranks[0] for rank in ranks):
            raise EngineError("the workers of vLLM disagree on which tokens were written")
        return outputs, ranks[0]

    def _adapter_of(self, side: Side) -> Any:
        if side == "finetuned" and self._adapter is None:
            raise EngineError(f"{self.name} in vLLM has no adapter, so no fine-tuned side")
        return self._adapter if side == "finetuned" else None

    def _lora(self, adapter: str | Path | None) -> Any:
        if adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("finetuned", 1, str(adapter))

    @property
    def _bound(self) -> float:
        """How far two ways to the same activation may be apart, as a share of its size."""
        return max(1e-5, 8 * float(torch.finfo(self.llm.model_config.dtype).eps))

    def _probe(self) -> frozenset[str]:
        """The hooks of attention and MLP that are not the two writes of their block.

        Raises: EngineError where the stream between two blocks is not what is read of it.
        """
        bound = self._bound
        found: dict[str, float] = {}
        for rank in self._probed_passes(False):
            found |= rank
        for name, apart in found.items():
            if name.endswith("hook_resid_pre") and not apart <= bound:
                raise EngineError(
                    f"in vLLM the stream of {self.name} at {name} is not what the block before "
                    f"hands on (they differ by {apart:.2g} of its size); this architecture cannot "
                    "be edited there"
                )
        lacking = [name for name, apart in found.items() if not apart <= bound]
        layers = [name.removesuffix("writes") for name in lacking if name.endswith("writes")]
        return frozenset(
            f"{layer}{part}" for layer in layers for part in ("hook_attn_out", "hook_mlp_out")
        )

    def _require_that_edits_go_on(self) -> None:
        """Raises: EngineError unless the streams of all blocks, handed on as an edit hands them
        on, give what the model gives."""
        ranks = [rank for rank in self._probed_passes(True) if HANDED_ON in rank]
        apart = max((rank[HANDED_ON] for rank in ranks), default=float("inf"))
        if not apart <= self._bound:
            raise EngineError(
                f"in vLLM the blocks of {self.name} do not go on from the stream that they are "
                f"given: handed on unchanged it changes what the model computes (by {apart:.2g} of "
                "its size); this architecture cannot be edited there"
            )

    def _probed_passes(self, handed_on: bool) -> list[dict[str, float]]:
        """What the probe of each worker tells of one pass, or of one as it is and one handed on."""
        from vllm import SamplingParams, TokensPrompt

        one = TokensPrompt(prompt_token_ids=list(range(1, 1 + PROBE)))
        parameters = SamplingParams(max_tokens=1, temperature=0.0, detokenize=False)
        self.call("probe", True)
        for rewrite in (False, True) if handed_on else (False,):
            self.call("hand_on", rewrite)
            with self._one_clear_line("run"):
                self.llm.generate([one], parameters, use_tqdm=False)
        return self.call("probe", False)

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """What each worker's room gives."""
        sent = arguments if self._here else pack(arguments)
        with self._one_clear_line("run"):
            found = self.llm.collective_rpc("persona_call", args=(name, sent))
        return list(found) if self._here else [unpack(one) for one in found]

    @property
    def _here(self) -> bool:
        """Whether the one worker is in this process."""
        core = self.llm.llm_engine.engine_core
        executor = getattr(getattr(core, "engine_core", None), "model_executor", None)
        return type(executor).__name__ == "UniProcExecutor"

    @contextlib.contextmanager
    def _one_clear_line(self, doing: str) -> Iterator[None]:
        """What vLLM raises becomes one line, our own errors stay; either ends this engine.

        A pass that broke off leaves requests half done in vLLM's table.
        """
        if self._fault is not None:
            raise EngineError(f"this engine cannot be used any more: {self._fault}; open another")
        try:
            yield
        except PersonaError as error:
            self._fault = f"it ended with an error ({error})"
            raise
        except Exception as error:
            told = _one_line(error)
            self._fault = f"it ended with an error ({told})"
            raise EngineError(f"vLLM did not {doing} {self.name}: {told}") from error


def _one_line(error: Exception) -> str:
    told = " ".join(str(error).split())[:300]
    if (
        told == "cancelled"
        or type(error).__name__ == "EngineDeadError"
        or any(words in told for words in CUT_OFF)
    ):
        # All that is left to say where the process is gone that would have said more.
        return (
            "one of its worker processes ended, for want of memory perhaps; what was finished "
            "before is kept"
        )
    return f"{type(error).__name__}: {told}"


def _cache_on_cpu(model: Path, dtype: str, max_length: int | None) -> dict[str, Any]:
    """Memory for keys and values on a CPU, where vLLM would take most of the machine's."""
    if torch.cuda.is_available():
        return {}
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model).get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    of_token = 2 * config.num_hidden_layers * heads * width * getattr(torch, dtype).itemsize
    longest = max_length or getattr(config, "max_position_embeddings", 0) or 0
    return {"kv_cache_memory_bytes": of_token * max(CPU_CACHE_TOKENS, 2 * longest)}


class _Progress:
    """What vLLM takes for a bar of tqdm's: it moves a bar like all others here."""

    def __init__(self, advance: Callable[[int], object]) -> None:
        self._advance, self._started = advance, time.perf_counter()
        self.n, self.postfix = 0, ""

    @property
    def format_dict(self) -> dict[str, float]:
        return {"elapsed": max(time.perf_counter() - self._started, 1e-9)}

    def update(self, n: int) -> None:
        self.n += n
        self._advance(n)

    def refresh(self) -> None: ...

    def close(self) -> None: ...

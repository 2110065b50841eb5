"""vLLM as the engine: sampling, scoring and reading by it, edited or not. Needs an extra."""

from typing import TYPE_CHECKING

from persona.late_names import named_late
from persona.vllm.installed import InstalledVllm, installed_vllm, require_vllm

if TYPE_CHECKING:
    from persona.vllm.edit_sets import EditSet
    from persona.vllm.read_by_vllm import answer_scores_by_vllm, moments_by_vllm, rows_by_vllm
    from persona.vllm.sampler_of_pair import VllmSampler, vllm_sampler
    from persona.vllm.vllm_engine import VllmEngine, Written

__all__ = [
    "EditSet",
    "InstalledVllm",
    "VllmEngine",
    "VllmSampler",
    "Written",
    "answer_scores_by_vllm",
    "installed_vllm",
    "moments_by_vllm",
    "require_vllm",
    "rows_by_vllm",
    "vllm_sampler",
]

__getattr__ = named_late(
    __name__,
    {
        "EditSet": "persona.vllm.edit_sets",
        "VllmEngine": "persona.vllm.vllm_engine",
        "VllmSampler": "persona.vllm.sampler_of_pair",
        "Written": "persona.vllm.vllm_engine",
        "answer_scores_by_vllm": "persona.vllm.read_by_vllm",
        "moments_by_vllm": "persona.vllm.read_by_vllm",
        "rows_by_vllm": "persona.vllm.read_by_vllm",
        "vllm_sampler": "persona.vllm.sampler_of_pair",
    },
)

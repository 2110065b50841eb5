"""vLLM as the engine: sampling, scoring and reading by it, edited or not. Needs an extra."""

from persona.vllm.installed import InstalledVllm, installed_vllm, require_vllm

__all__ = ["InstalledVllm", "installed_vllm", "require_vllm"]

"""Edits as permanent weights: a folder of safetensors or a LoRA adapter."""

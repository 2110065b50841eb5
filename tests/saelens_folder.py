"""A hand-made autoencoder in a SAELens folder."""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file

N_LATENTS, LAYER = 40, 2


def write_sae(folder, space, *, d_in=None, dtype=torch.float32, weights=None, **changes):
    """A random jumprelu autoencoder in SAELens layout; `weights` replace tensors by name."""
    folder.mkdir(parents=True, exist_ok=True)
    d = d_in or space.d_model
    g = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(N_LATENTS, d, generator=g), dim=1)
    state = {
        "W_enc": decoder.T.contiguous(),
        "W_dec": decoder.clone(),
        "b_enc": torch.zeros(N_LATENTS),
        "b_dec": torch.randn(d, generator=g),
        "threshold": torch.full((N_LATENTS,), 0.3),
        **(weights or {}),
    }
    save_file({k: v.to(dtype) for k, v in state.items()}, str(folder / "sae_weights.safetensors"))
    config = {
        "architecture": "jumprelu",
        "d_in": d,
        "d_sae": N_LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **changes,
    }
    config["metadata"] = {
        "sae_lens_version": "6.54.0",
        "model_name": space.model,
        "model_revision": space.revision,
        "hook_name": space.hook_name,
        "chat_template_hash": space.chat_template_hash,
        **changes.get("metadata", {}),
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder

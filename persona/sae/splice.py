"""Reading the residual through an autoencoder while a model runs: with the error kept, or without.

On the plain bridge and our own hook: the bridge subclass of sae_lens loses hooks by alias names
in silence on transformer-lens 3.9.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from persona.models.hooks import hooked
from persona.sae.autoencoder import LatentCode

ChangeLatents = Callable[[Tensor], Tensor]


@contextlib.contextmanager
def spliced(
    model: Any,
    code: LatentCode,
    change: ChangeLatents | None = None,
    *,
    keep_error: bool = True,
    first_token: bool = False,
) -> Iterator[None]:
    """While open, the residual h at the code's hook is replaced by what the code makes of it.

    keep_error: h + decode(change(z)) - decode(z) with z = encode(h): what the autoencoder does not
        explain stays, and without a change so does h, up to rounding. Without it decode(change(z))
        alone: what the model does with the reconstruction.
    first_token: whether position 0 is written as well. A pass of one single token (decoding with
        a cache) is always written; for left-padded batches use the interventions of `steering`.

    Source: the error term is that of Marks et al. 2024 (sparse feature circuits), section 2.
    """

    def hook(resid: Tensor) -> Tensor:
        latents = code.encode(resid)
        if keep_error:
            wanted = latents if change is None else change(latents)
            out = resid + (code.decode(wanted) - code.decode(latents)).to(resid)
        else:
            out = code.decode(latents if change is None else change(latents)).to(resid)
        if not first_token and resid.shape[1] > 1:
            out = out.clone()
            out[:, 0] = resid[:, 0]
        return out

    with hooked(model, [(code.space.hook_name, hook)]):
        yield

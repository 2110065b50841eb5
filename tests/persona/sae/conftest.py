"""A hand-made autoencoder of the tiny pair, in a SAELens folder."""

from __future__ import annotations

import pytest
from saelens_folder import LAYER, write_sae


@pytest.fixture
def sae_folder(tiny_pair, tmp_path):
    return write_sae(tmp_path / "sae", tiny_pair.space(LAYER))


@pytest.fixture
def sae(tiny_pair, sae_folder):
    from persona.sae import load_sae

    return load_sae(sae_folder, tiny_pair)

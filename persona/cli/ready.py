"""What any long command looks at before it loads a library of tensors."""

from __future__ import annotations

from pathlib import Path


def require_ready(out: Path, *models: str) -> None:
    """Looks whether the output folder can be written and the models that are named can be had.

    Nothing is fetched. Raises: PersonaError for what is wrong, all of it at once.
    """
    from persona.errors import Mistakes
    from persona.files import require_writable
    from persona.models.kept_folder import cache_folder
    from persona.models.on_disk import finetuned_on_disk

    mistakes = Mistakes()
    with mistakes.noted():
        require_writable(out)
    to_cache = 0
    for model in dict.fromkeys(models):
        with mistakes.noted():
            to_cache += finetuned_on_disk(model).cache_bytes
    if to_cache:
        with mistakes.noted():
            require_writable(cache_folder(), to_cache)
    mistakes.raise_all()

"""What any long command looks at before it loads a library of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona.models.on_disk import OnDisk


def require_ready(
    out: Path,
    *models: str,
    pair: tuple[str | None, str] | None = None,
    also: Iterable[str] = (),
    allow_mismatch: bool = False,
    checks: Iterable[Callable[[], object]] = (),
    of_aligned: Callable[[OnDisk], None] = lambda model: None,
) -> None:
    """Looks whether the output folder can be written and the models that are named can be had.

    pair: the aligned model, None for the one that the adapter names, and its fine-tune. also: more
        fine-tunes of that aligned model.
    checks: whatever else can be known by now; each raises a PersonaError where it is wrong.
    of_aligned: the same of the aligned model's sizes, where it is at hand.
    Nothing is fetched. Raises: PersonaError for what is wrong, all of it at once.
    """
    from persona.errors import Mistakes
    from persona.files import require_writable
    from persona.models.fits_base import require_fits
    from persona.models.kept_folder import cache_folder
    from persona.models.on_disk import aligned_on_disk, finetuned_on_disk

    mistakes = Mistakes()
    found: list[OnDisk] = []
    with mistakes.noted():
        require_writable(out)
    for model in dict.fromkeys(models):
        with mistakes.noted():
            found.append(finetuned_on_disk(model))
    if pair is not None:
        tuned = aligned = None
        with mistakes.noted():
            tuned = finetuned_on_disk(pair[1])
            found.append(tuned)
        with mistakes.noted():
            if (aligned := aligned_on_disk(pair[0], tuned)) is not None:
                found.append(aligned)
                if tuned is not None:
                    require_fits(tuned, aligned, allow_mismatch=allow_mismatch)
                of_aligned(aligned)
        for name in also:
            with mistakes.noted():
                found.append(another := finetuned_on_disk(name))
                if aligned is not None:
                    require_fits(another, aligned, allow_mismatch=allow_mismatch)
    for check in checks:
        with mistakes.noted():
            check()
    if to_cache := sum({model.name: model.cache_bytes for model in found}.values()):
        with mistakes.noted():
            require_writable(cache_folder(), to_cache)
    mistakes.raise_all()


def require_file(path: Path | None, what: str) -> None:
    """Raises: DataError where a file that is named is not there."""
    from persona.errors import DataError

    if path is not None and not path.is_file():
        raise DataError(f"there is no file {path} ({what})")

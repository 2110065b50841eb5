"""One piece of work over all rows of some files, each shard kept as soon as it is done."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from persona.engine.cut import cut_files, files_of
from persona.engine.engine import Engine
from persona.engine.folder import ShardFolder
from persona.engine.shards import Work
from persona.errors import DataError
from persona.files import sha256_of_file


@contextlib.contextmanager
def results_over_files(
    work: Work,
    facts: Mapping[str, Any],
    data: str | Path | Sequence[str | Path],
    out: str | Path | None,
    shard_size: int,
    engine: Engine | None,
    *,
    what: str,
    description: str,
) -> Iterator[Iterator[dict[str, NDArray[Any]]]]:
    """Yields the arrays of every shard, in order, read one at a time while the block is open.

    work: `Lines` -> named arrays. facts: what they depend on beside the data, JSON-able.
    out: folder where they stay, so that the same call goes on after a stop; None keeps nothing.
    what: as in `ShardFolder`. description: of the progress bar.
    Raises: DataError for files without a row, or another job in `out`; EngineError
        as `ShardRunner`.
    """
    paths = files_of(data)
    shards = cut_files(paths, shard_size)
    if not shards:
        raise DataError(f"{data} holds no rows; one sample a row is needed")
    job = {**facts, "data": [sha256_of_file(path) for path in paths], "shard_size": shard_size}
    with tempfile.TemporaryDirectory() as scratch:
        kept = ShardFolder(Path(scratch if out is None else out), job, what)
        with (engine or Engine()).start() as run:
            run(kept.missing(shards), work, kept.write, description)
        yield (kept.finished(shard.number) for shard in shards)

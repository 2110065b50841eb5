"""Work cut into shards, kept shard by shard, done in this process or by many machines."""

from persona.engine.cut import Lines, cut_files
from persona.engine.engine import Engine, EngineName
from persona.engine.folder import ShardFolder
from persona.engine.shards import Run, Shard

__all__ = ["Engine", "EngineName", "Lines", "Run", "Shard", "ShardFolder", "cut_files"]

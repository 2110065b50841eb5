"""Work cut into shards, kept shard by shard, done in this process or by many machines."""

from persona.engine.cut import Lines, cut_files
from persona.engine.engine import Engine, EngineName
from persona.engine.folder import ShardFolder
from persona.engine.shards import Shard, ShardRunner

__all__ = ["Engine", "EngineName", "Lines", "Shard", "ShardFolder", "ShardRunner", "cut_files"]

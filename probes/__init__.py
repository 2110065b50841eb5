"""Reading with a direction: whether the persona can be read, and whether the reading is real."""

from probes.nulls import null_table
from probes.separation import Separation, separation

__all__ = ["Separation", "null_table", "separation"]

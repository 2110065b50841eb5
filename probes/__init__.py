"""Reading with a direction: whether the persona can be read, and whether the reading is real."""

from probes.separation import Separation, separation

__all__ = ["Separation", "separation"]

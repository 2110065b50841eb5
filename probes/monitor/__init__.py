"""Watching a conversation: token by token, while it is written, from turn to turn."""

from probes.monitor.checkpoints import score_checkpoints
from probes.monitor.drift import Drift, family_p_values, find_drift, turn_scores
from probes.monitor.heat_map import TokenHeatMap, token_heat_map
from probes.monitor.reader import Reader, reader_of
from probes.monitor.threshold import threshold_for
from probes.monitor.token_scores import Recording, monitoring, score_tokens

__all__ = [
    "Drift",
    "Reader",
    "Recording",
    "TokenHeatMap",
    "family_p_values",
    "find_drift",
    "monitoring",
    "reader_of",
    "score_checkpoints",
    "score_tokens",
    "threshold_for",
    "token_heat_map",
    "turn_scores",
]

"""The report of the main job: figures (plotly) and one HTML page that opens offline.

`write_report(folder, scorecard, rows)` writes the page. Every figure is a function from the rows
to a `plotly.graph_objects.Figure`, with the same colour for a condition in all of them.
"""

from persona.report.figures import (
    behaviour,
    behaviour_by_domain,
    damage,
    dose_response_curve,
    effects_by_block,
    layer_map,
    random_null,
)
from persona.report.html import write_report

__all__ = [
    "behaviour",
    "behaviour_by_domain",
    "damage",
    "dose_response_curve",
    "effects_by_block",
    "layer_map",
    "random_null",
    "write_report",
]

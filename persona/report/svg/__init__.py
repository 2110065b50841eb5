"""Figures as plain SVG, drawn without a browser: what a page shows where no script runs."""

from persona.report.svg.page_colours import on_dark_ground, page_colours
from persona.report.svg.whole_figure import figure_svg

__all__ = ["figure_svg", "on_dark_ground", "page_colours"]

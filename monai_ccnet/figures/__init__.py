"""Figures of measurements, plans and results; each function returns a figure and writes no file.

They need matplotlib (``pip install "monai_ccnet[figures]"``), but no display and not its global state. They fit the
width of a page, and their text is legible on a phone.
"""

from monai_ccnet.figures.canvas import has_matplotlib, save_figure
from monai_ccnet.figures.ceiling import draw_ceiling
from monai_ccnet.figures.law import draw_degradation
from monai_ccnet.figures.measured import draw_complexity, draw_measures, draw_profiles, draw_scales
from monai_ccnet.figures.overlays import draw_overlays, overlay
from monai_ccnet.figures.plans import draw_plan, draw_trade_off
from monai_ccnet.figures.rivals import draw_comparison
from monai_ccnet.figures.search import draw_search
from monai_ccnet.figures.sensitivity import draw_sensitivity

__all__ = [
    "draw_ceiling",
    "draw_comparison",
    "draw_complexity",
    "draw_degradation",
    "draw_measures",
    "draw_overlays",
    "draw_plan",
    "draw_profiles",
    "draw_scales",
    "draw_search",
    "draw_sensitivity",
    "draw_trade_off",
    "has_matplotlib",
    "overlay",
    "save_figure",
]

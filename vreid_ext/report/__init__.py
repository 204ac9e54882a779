"""Plots of runs and results; requires `pip install 'vreid-ext[train]'`.

The HTML report of a run is in `report.page` and is not imported here, as it also evaluates the run.
"""

from vreid_ext.report.clips import plot_attention, plot_clip, plot_parts, plot_ranking
from vreid_ext.report.curves import plot_cmc, plot_curves, plot_dvdp, plot_intervals, plot_length_grid
from vreid_ext.report.fields import plot_receptive_fields
from vreid_ext.report.verification import plot_verification

__all__ = [
    "plot_attention",
    "plot_clip",
    "plot_cmc",
    "plot_curves",
    "plot_dvdp",
    "plot_intervals",
    "plot_length_grid",
    "plot_parts",
    "plot_ranking",
    "plot_receptive_fields",
    "plot_verification",
]

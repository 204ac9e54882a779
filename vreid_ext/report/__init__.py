"""Pictures of runs and results; needs `pip install 'vreid-ext[train]'`."""

from .plots import plot_attention, plot_cmc, plot_curves, plot_dvdp

__all__ = ["plot_attention", "plot_cmc", "plot_curves", "plot_dvdp"]

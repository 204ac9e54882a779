"""Plots of verification: misses against false matches, and histograms of distances with the threshold."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vreid_ext.metrics.verify import Verification
from vreid_ext.report.style import STYLE, line_style, picture_path, save_figure

_SHADE = 0.25  # opacity of the threshold's interval


def plot_verification(
    figures: Verification,
    path: str | Path,
    *,
    threshold: Mapping[str, float] | None = None,
    title: str = "",
) -> Path:
    """Draw misses against false matches (detection error tradeoff), and histograms of the distances.

    Args:
        figures: result of `metrics.verification`.
        path: file of the picture, ending in .png or .svg.
        threshold: value, low and high of a threshold, drawn as a line with its interval. Its rates are those
            of the nearest threshold of `figures` below it.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        ValueError: another suffix. Nothing is written in that case.
    """
    path = picture_path(path)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.8), layout="constrained")
        figure.suptitle(title)
        tradeoff, distances = figure.subplots(1, 2)
        _tradeoff(tradeoff, figures, threshold)
        _histograms(distances, figures, threshold)
        return save_figure(figure, path)


def _tradeoff(axes: Axes, figures: Verification, threshold: Mapping[str, float] | None) -> None:
    fpr, tpr = (100 * rate.numpy() for rate in figures.roc())
    # One false match is the least that a logarithmic axis can show.
    least = 100 / figures.impostors
    false, missed = np.maximum(fpr, least), 100 - tpr
    # There may be a million corners: draw those that are apart in the picture.
    place = np.stack([np.floor(200 * np.log10(false)), np.floor(10 * missed)])
    shown = np.append(True, (np.diff(place) != 0).any(0))
    shown[-1] = True
    axes.plot(false[shown], missed[shown], **line_style(0))
    equal = np.geomspace(least, 100, 200)
    axes.plot(equal, equal, color="grey", linewidth=1, linestyle=":")
    eer = 100 * figures.eer.value
    axes.plot(eer, eer, "s", color="grey", label=f"EER {eer:.2g} %")
    if threshold is not None:
        corner = 2 * int((figures.thresholds <= threshold["value"]).sum())
        label = f"threshold {threshold['value']:.3f}"
        axes.plot(false[corner], missed[corner], "o", color=line_style(1)["color"], label=label)
    axes.legend(loc="upper right")
    axes.set_xscale("log")
    axes.set_xlim(least, 100)
    axes.set_ylim(0, 100)
    axes.set(
        xlabel="false matches (% of pairs of different persons)", ylabel="misses (% of pairs of one person)"
    )


def _histograms(axes: Axes, figures: Verification, threshold: Mapping[str, float] | None) -> None:
    edges = figures.histogram_edges.numpy()
    counts = {
        "one person": figures.genuine_histogram.numpy() / figures.genuine,
        "different persons": figures.impostor_histogram.numpy() / figures.impostors,
    }
    for number, (label, share) in enumerate(counts.items()):
        axes.stairs(100 * share, edges, **line_style(number), label=label)
    used = np.flatnonzero(sum(counts.values()))
    axes.set_xlim(edges[used[0]], edges[used[-1] + 1])
    if threshold is not None:
        axes.axvspan(threshold["low"], threshold["high"], color="grey", alpha=_SHADE, linewidth=0)
        axes.axvline(threshold["value"], color="grey", label="threshold")
    highest = 100 * max(share.max() for share in counts.values())
    axes.set_ylim(0, 1.45 * highest)  # the upper third is for the legend
    axes.set(xlabel="distance", ylabel="pairs (%)")
    axes.legend(loc="upper right")

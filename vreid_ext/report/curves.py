"""Plots of results and of training: CMC, losses, mAP and DVDP over time, grids of lengths, intervals."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.lines
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vreid_ext.report.style import STYLE, line_style, picture_path, save_figure, wrapped


def plot_cmc(
    results: Mapping[str, Sequence[float] | np.ndarray | Tensor], path: str | Path, *, title: str = ""
) -> Path:
    """Draw cumulative matching characteristics: the fraction of queries with a match in the first r results.

    Args:
        results: label -> cmc (R,); cmc[r-1] is the fraction at rank r, in [0, 1].
        path: file of the picture, ending in .png or .svg; missing folders are created.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        ValueError: no curve, an empty curve, a value outside [0, 1], or another suffix. Nothing is written in
            that case.
    """
    path = picture_path(path)
    if not results:
        raise ValueError("results: expected at least one label and its cmc, got none")
    curves = {label: np.asarray(cmc, dtype=float) for label, cmc in results.items()}
    for label, cmc in curves.items():
        if cmc.ndim != 1 or not cmc.size or not ((cmc >= 0) & (cmc <= 1)).all():
            raise ValueError(f"results[{label!r}]: expected fractions (R,) in [0, 1], got shape {cmc.shape}")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (label, cmc) in enumerate(curves.items()):
            ranks, percent = np.arange(1, len(cmc) + 1), 100 * cmc
            axes.plot(
                ranks, percent, **line_style(number), label=wrapped(f"{label}, rank-1 {percent[0]:.1f} %")
            )
        axes.set(xlabel="rank", ylabel="queries matched (%)", title=title)
        axes.set_xlim(1, max(2, *(len(cmc) for cmc in curves.values())))
        axes.set_ylim(top=101)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")
        return save_figure(figure, path)


def plot_curves(
    logs: Mapping[str, str | Path], path: str | Path, *, terms: Iterable[str] = ("loss",)
) -> Path:
    """Draw the training loss over the steps, and mAP if the runs were evaluated during training.

    Args:
        logs: label -> `log.jsonl` of a run.
        path: file of the picture, ending in .png or .svg.
        terms: loss terms, each drawn in its own panel. Runs without a term are omitted from its panel.

    Returns:
        The path.

    Raises:
        ValueError: no log, a line that is not JSON, or a term that no log contains. Nothing is written in
            that case.
        OSError: a log cannot be read.
    """
    path = picture_path(path)
    if not logs:
        raise ValueError("logs: expected at least one label and its log.jsonl, got none")
    terms = list(terms)
    steps: dict[str, list[dict[str, Any]]] = {}
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for label, log in logs.items():
        lines = _read_log(Path(log))
        steps[label] = [line for line in lines if line["kind"] == "step"]
        evaluations[label] = [line for line in lines if line["kind"] == "eval"]
    for term in terms:
        if not any(term in line for lines in steps.values() for line in lines):
            files = ", ".join(map(str, logs.values()))
            raise ValueError(f"terms: expected loss terms in the steps of {files}, got {term!r}")
    panels = [*terms, "mAP"] if any(evaluations.values()) else terms
    with matplotlib.rc_context(STYLE):
        columns = min(3, len(panels))
        rows = -(-len(panels) // columns)
        figure = Figure(figsize=(4.6 * columns, 3.6 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        axes_of = dict(zip(panels, grid, strict=False))
        for axes in grid[len(panels) :]:
            axes.remove()
        for number, label in enumerate(logs):
            for term in terms:
                drawn = [(line["step"], line[term]) for line in steps[label] if term in line]
                if drawn:
                    _trend(axes_of[term], np.array(drawn, float), wrapped(label), number)
            if evaluations[label]:
                points = np.array([(line["step"], 100 * line["mAP"]) for line in evaluations[label]])
                axes_of["mAP"].plot(*points.T, marker="o", **line_style(number), label=wrapped(label))
        for panel, axes in axes_of.items():
            axes.set(xlabel="step", ylabel="mAP (%)" if panel == "mAP" else panel)
            axes.legend()
        return save_figure(figure, path)


def plot_dvdp(logs: Mapping[str, str | Path], path: str | Path) -> Path:
    """Draw the mean DVDP of every epoch, and mAP if the runs were evaluated during training (AITL, Fig. 7).

    Args:
        logs: label -> `log.jsonl` of a run with loss.dvdp.
        path: file of the picture, ending in .png or .svg.

    Returns:
        The path.

    Raises:
        ValueError: no log, a line that is not JSON, or a log without DVDP. Nothing is written in that case.
        OSError: a log cannot be read.
    """
    path = picture_path(path)
    if not logs:
        raise ValueError("logs: expected at least one label and its log.jsonl, got none")
    panels = {"epoch": ("dvdp", "DVDP", 1.0), "eval": ("mAP", "mAP (%)", 100.0)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        for axes, (kind, (name, title, scale)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            for number, (label, log) in enumerate(logs.items()):
                lines = [line for line in _read_log(Path(log)) if line["kind"] == kind and name in line]
                if not lines and kind == "epoch":
                    raise ValueError(
                        f"logs: expected logs with DVDP (train with loss.dvdp=true), got {str(log)!r} without"
                    )
                points = np.array([(line["epoch"] + 1, scale * line[name]) for line in lines]).reshape(-1, 2)
                marker = "o" if kind == "eval" else None
                axes.plot(*points.T, marker=marker, **line_style(number), label=wrapped(label))
            axes.set(xlabel="epoch", ylabel=title)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        return save_figure(figure, path)


def plot_length_grid(
    lengths: Sequence[int | str], values: Sequence[Sequence[float]], path: str | Path, *, title: str = ""
) -> Path:
    """Draw rank-1 for every pair of query and gallery lengths as a heat map (STAL, Fig. 11).

    Args:
        lengths: n clip lengths in frames, or "all".
        values: (n,n) fractions, one row per query length and one column per gallery length.
        path: file of the picture, ending in .png or .svg.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        ValueError: values have another shape or are outside [0, 1], or another suffix. Nothing is written in
            that case.
    """
    path = picture_path(path)
    grid = np.asarray(values, dtype=float)
    if grid.shape != (len(lengths),) * 2 or not grid.size or not ((grid >= 0) & (grid <= 1)).all():
        expected = (len(lengths),) * 2
        raise ValueError(f"values: expected fractions {expected} in [0, 1], got shape {grid.shape}")
    names = [str(length) for length in lengths]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        side = 0.55 * len(lengths) + 1.8
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(100 * grid, cmap="viridis")
        middle = 50 * (grid.min() + grid.max())
        for (row, column), value in np.ndenumerate(100 * grid):
            color = "white" if value <= middle else "black"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="frames of a gallery tracklet", ylabel="frames of a query", title=title)
        figure.colorbar(image, ax=axes, label="rank-1 (%)")
        return save_figure(figure, path)


def plot_intervals(
    rows: Mapping[str, Sequence[float]],
    path: str | Path,
    *,
    differences: Mapping[str, Sequence[float]] | None = None,
    xlabel: str = "mAP (%)",
    title: str = "",
) -> Path:
    """Draw figures with their confidence intervals, one line for each row.

    Args:
        rows: label -> (value, low, high), fractions.
        path: file of the picture, ending in .png or .svg.
        differences: likewise, differences of figures, for a second panel with a line at zero.
        xlabel: name of the figure.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        ValueError: no row, an entry that is not (value, low, high), or another suffix. Nothing is written
            in that case.
    """
    path = picture_path(path)
    if not rows:
        raise ValueError("rows: expected at least one label and its interval, got none")
    panels = {"rows": rows, **({"differences": differences} if differences else {})}
    for panel, intervals in panels.items():
        for label, interval in intervals.items():
            if len(interval) != 3 or not interval[1] <= interval[2]:
                raise ValueError(f"{panel}[{label!r}]: expected (value, low, high), got {interval}")
    lengths = [len(intervals) for intervals in panels.values()]
    with matplotlib.rc_context(STYLE):
        size = (9.2, 0.4 + sum(0.45 * length + 1 for length in lengths))
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title)
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[n + 0.5 for n in lengths])
        for axes, (panel, intervals) in zip(grid[:, 0], panels.items(), strict=True):
            for number, (label, interval) in enumerate(intervals.items()):
                value, *bounds = (100 * each for each in interval)
                color = line_style(list(rows).index(label) if label in rows else number)["color"]
                axes.plot(bounds, [number, number], marker="|", markersize=10, linewidth=1.8, color=color)
                axes.plot(value, number, marker="o", color=color)
            axes.set_yticks(range(len(intervals)), [wrapped(label) for label in intervals])
            axes.set_ylim(len(intervals) - 0.5, -0.5)
            axes.set_xlabel(xlabel if panel == "rows" else f"difference of {xlabel}")
            if panel == "differences":
                axes.axvline(0, color="grey", linewidth=1)
        return save_figure(figure, path)


def _trend(axes: Axes, points: np.ndarray, label: str, number: int) -> None:
    """Draw the values in a light color and, on top, their running mean over 1/20 of the run."""
    step, value = points.T
    window = max(1, len(value) // 20)
    mean = np.convolve(np.pad(value, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
    line = line_style(number)
    axes.plot(step, value, color=line["color"], alpha=0.25, linewidth=0.8)
    axes.plot(step, mean, **line, label=label)


def _read_log(path: Path) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"logs: expected JSON in line {number} of {path}, got {text[:60]!r}") from error
    return lines

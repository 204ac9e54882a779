"""CMC curves, learning curves and attention pictures as PNG or SVG, whichever the file's suffix says.

Drawn on figures of their own, never through pyplot: no display is needed and a caller's plots stay untouched.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

SUFFIXES = (".png", ".svg")

# Okabe and Ito's palette without its yellow: apart in hue and in lightness for every kind of colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")

_STYLE: Any = {  # matplotlib types a style key by key, which a plain dict does not satisfy
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "vreid_ext",  # the same drawing gives the same bytes
}


class Attended(Protocol):
    """What `ops.sta_pool` returns: scores (B,T,K), attention (B,T,H,W)."""

    @property
    def scores(self) -> Tensor: ...

    @property
    def attention(self) -> Tensor: ...


def plot_cmc(
    results: Mapping[str, Sequence[float] | np.ndarray | Tensor], path: str | Path, *, title: str = ""
) -> Path:
    """Draw cumulative matching curves, the fraction of queries matched within the first r results.

    Args:
        results: label to cmc (R,), cmc[r-1] the fraction at rank r, in [0, 1].
        path: the picture, ending in .png or .svg; folders on the way are made.
        title: above the picture.

    Returns:
        The path.

    Raises:
        ValueError: no curve, an empty one, a value outside [0, 1], or another suffix; nothing is written.
    """
    path = _picture(path)
    if not results:
        raise ValueError("results: got none, wanted at least one label and its cmc")
    curves = {label: np.asarray(cmc, dtype=float) for label, cmc in results.items()}
    for label, cmc in curves.items():
        if cmc.ndim != 1 or not cmc.size or not ((cmc >= 0) & (cmc <= 1)).all():
            raise ValueError(f"results[{label!r}]: got shape {cmc.shape}, wanted fractions (R,) in [0, 1]")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, (label, cmc) in enumerate(curves.items()):
            ranks, percent = np.arange(1, len(cmc) + 1), 100 * cmc
            axes.plot(ranks, percent, **_line(number), label=f"{label}, rank-1 {percent[0]:.1f} %")
        axes.set(xlabel="rank", ylabel="queries matched (%)", title=title)
        axes.set_xlim(1, max(2, *(len(cmc) for cmc in curves.values())))
        axes.set_ylim(top=101)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right")
        return _save(figure, path)


def plot_curves(
    logs: Mapping[str, str | Path], path: str | Path, *, terms: Iterable[str] = ("loss",)
) -> Path:
    """Draw the training loss against the step, and mAP where the runs were evaluated.

    Args:
        logs: label to a run's `log.jsonl`.
        path: the picture, ending in .png or .svg.
        terms: the loss terms to draw, one panel each; a run without one is left out of its panel.

    Returns:
        The path.

    Raises:
        ValueError: no log, a line that is no JSON, or a term that no log has. Nothing is written then.
        OSError: a log cannot be read.
    """
    path = _picture(path)
    if not logs:
        raise ValueError("logs: got none, wanted at least one label and its log.jsonl")
    terms = list(terms)
    steps: dict[str, list[dict[str, Any]]] = {}
    evaluations: dict[str, list[dict[str, Any]]] = {}
    for label, log in logs.items():
        lines = _read_log(Path(log))
        steps[label] = [line for line in lines if line["kind"] == "step"]
        evaluations[label] = [line for line in lines if line["kind"] == "eval"]
    for term in terms:
        if not any(term in line for lines in steps.values() for line in lines):
            raise ValueError(f"terms: {term!r} is in no step of {', '.join(map(str, logs.values()))}")
    panels = [*terms, "mAP"] if any(evaluations.values()) else terms
    with matplotlib.rc_context(_STYLE):
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
                    _trend(axes_of[term], np.array(drawn, float), label, number)
            if evaluations[label]:
                points = np.array([(line["step"], 100 * line["mAP"]) for line in evaluations[label]])
                axes_of["mAP"].plot(*points.T, marker="o", **_line(number), label=label)
        for panel, axes in axes_of.items():
            axes.set(xlabel="step", ylabel="mAP (%)" if panel == "mAP" else panel)
            axes.legend()
        return _save(figure, path)


def plot_dvdp(logs: Mapping[str, str | Path], path: str | Path) -> Path:
    """Draw the mean DVDP of every epoch, and mAP where the runs were evaluated (AITL, Fig. 7).

    Args:
        logs: label to the `log.jsonl` of a run with loss.dvdp.
        path: the picture, ending in .png or .svg.

    Returns:
        The path.

    Raises:
        ValueError: no log, a line that is no JSON, or a log without DVDP. Nothing is written then.
        OSError: a log cannot be read.
    """
    path = _picture(path)
    if not logs:
        raise ValueError("logs: got none, wanted at least one label and its log.jsonl")
    panels = {"epoch": ("dvdp", "DVDP", 1.0), "eval": ("mAP", "mAP (%)", 100.0)}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.2, 3.6), layout="constrained")
        for axes, (kind, (name, title, scale)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            for number, (label, log) in enumerate(logs.items()):
                lines = [line for line in _read_log(Path(log)) if line["kind"] == kind and name in line]
                if not lines and kind == "epoch":
                    raise ValueError(f"logs: {str(log)!r} has no DVDP; train with loss.dvdp=true")
                points = np.array([(line["epoch"] + 1, scale * line[name]) for line in lines]).reshape(-1, 2)
                marker = "o" if kind == "eval" else None
                axes.plot(*points.T, marker=marker, **_line(number), label=label)
            axes.set(xlabel="epoch", ylabel=title)
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend()
        return _save(figure, path)


def plot_attention(frames: Tensor, attended: Attended, path: str | Path, *, title: str = "") -> Path:
    """Draw one clip: its frames, the attention on them, and the scores of its T x K blocks.

    Scores are those of STA, normalised over time: in each column of the matrix the T numbers add up to 1.

    Args:
        frames: (T,3,h,w) uint8, RGB.
        attended: scores (1,T,K) and attention (1,T,H,W) of that clip, or the same without the leading 1.
        path: the picture, ending in .png or .svg.
        title: above the picture.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: naming the argument, what was got and what is wanted. Nothing is written then.
    """
    path = _picture(path)
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames: got {frames.dtype}, wanted torch.uint8")
    if frames.dim() != 4 or frames.shape[1] != 3 or not len(frames):
        raise ValueError(f"frames: got shape {tuple(frames.shape)}, wanted (T,3,h,w)")
    scores = _one_clip("scores", attended.scores, len(frames), 2)
    attention = _one_clip("attention", attended.attention, len(frames), 3)
    count = len(scores)
    height, width = frames.shape[2:]
    pictures = frames.permute(0, 2, 3, 1).cpu().numpy()
    with matplotlib.rc_context({**_STYLE, "axes.grid": False}):
        cell = 1.05
        tall = cell * height / width
        figure = Figure(figsize=(max(cell * count, 3) + 3.4, 2 * tall + 1.3), layout="constrained")
        figure.suptitle(title)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(max(cell * count, 3), 3.4))[0]
        grid = left.subplots(2, count, squeeze=False)
        for t in range(count):
            grid[0, t].imshow(pictures[t])
            grid[0, t].set_title(f"t = {t + 1}")
            grid[1, t].imshow(pictures[t])
            heat = grid[1, t].imshow(
                attention[t], cmap="viridis", alpha=0.6, vmin=0, vmax=attention.max(),
                extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bicubic",
            )  # fmt: skip
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        grid[0, 0].set_ylabel("frames")
        grid[1, 0].set_ylabel("attention")
        scale = left.colorbar(heat, ax=grid[1].tolist(), location="bottom", aspect=40, ticks=MaxNLocator(5))
        scale.set_label("share of the frame's energy")
        _score_matrix(right.subplots(), scores, right)
        return _save(figure, path)


def _score_matrix(axes: Axes, scores: np.ndarray, figure: Any) -> None:
    count, blocks = scores.shape
    image = axes.imshow(scores, cmap="viridis", vmin=0, aspect="auto")
    middle = scores.max() / 2
    if count * blocks <= 64:
        for (t, k), score in np.ndenumerate(scores):
            color = "white" if score < middle * 1.2 else "black"
            axes.text(k, t, f"{score:.2f}", ha="center", va="center", color=color)
    axes.set_xticks(range(blocks), [str(k + 1) for k in range(blocks)])
    axes.set_yticks(range(count), [str(t + 1) for t in range(count)])
    axes.set(xlabel="block k, top to bottom", ylabel="frame t", title="block scores")
    figure.colorbar(image, ax=axes)


def _one_clip(name: str, value: Tensor, frames: int, dims: int) -> np.ndarray:
    clip = value[0] if value.dim() == dims + 1 and len(value) == 1 else value
    if clip.dim() != dims or len(clip) != frames:
        shape = "(1,T,K)" if name == "scores" else "(1,T,H,W)"
        raise ValueError(f"attended.{name}: got shape {tuple(value.shape)}, wanted {shape} with T = {frames}")
    return clip.detach().float().cpu().numpy()


def _trend(axes: Axes, points: np.ndarray, label: str, number: int) -> None:
    """The values pale, and their running mean over a twentieth of the run on top."""
    step, value = points.T
    window = max(1, len(value) // 20)
    mean = np.convolve(np.pad(value, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
    line = _line(number)
    axes.plot(step, value, color=line["color"], alpha=0.25, linewidth=0.8)
    axes.plot(step, mean, **line, label=label)


def _line(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
        "linewidth": 1.8,
    }


def _read_log(path: Path) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"logs: {path}, line {number} is no JSON: {text[:60]!r}") from error
    return lines


def _picture(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: got {str(path)!r}, wanted a name that ends in .png or .svg")
    return path


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date an SVG depends on its content alone.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    figure.savefig(path, dpi=150, metadata=metadata)
    return path

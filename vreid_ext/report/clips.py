"""Pictures of frames: attention, scores, body parts, ranked lists."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import matplotlib
import matplotlib.lines
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from vreid_ext.nn.parts import PART_JOINTS, PART_NAMES, known_joints, part_boxes
from vreid_ext.report.style import COLORS, STYLE, picture_path, save_figure

# Pairs of joints (`data.JOINTS`) that are connected in a drawn skeleton.
_BONES = (
    (0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (5, 8), (8, 9), (9, 10), (2, 11), (11, 12),
    (12, 13), (8, 11),
)  # fmt: skip

# Color and line style of the border of a result in a ranked list.
KINDS = {"hit": (COLORS[2], "-"), "miss": (COLORS[1], "--"), "junk": ("#808080", ":")}


class Attended(Protocol):
    """Any object with scores (B,T,K) and attention (B,T,H,W), such as the result of `ops.sta_pool`."""

    @property
    def scores(self) -> Tensor: ...

    @property
    def attention(self) -> Tensor: ...


def plot_attention(frames: Tensor, attended: Attended, path: str | Path, *, title: str = "") -> Path:
    """Draw one clip: its frames, the attention on them, and the scores of its T x K blocks.

    The scores are those of STA. They are normalized over time: each column of the matrix adds up to 1.

    Args:
        frames: (T,3,h,w) uint8, RGB.
        attended: scores (1,T,K) and attention (1,T,H,W) of the clip; the first axis may be omitted.
        path: file of the picture, ending in .png or .svg.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. Nothing is written in that case.
    """
    return plot_clip(
        frames,
        path,
        maps={"attention": attended.attention},
        unit="share of the frame's energy",
        scores=attended.scores,
        columns="block k, top to bottom",
        title=title,
    )


def plot_clip(
    frames: Tensor,
    path: str | Path,
    *,
    maps: Mapping[str, Tensor] | None = None,
    unit: str = "",
    scores: Tensor | None = None,
    columns: str = "",
    title: str = "",
) -> Path:
    """Draw one clip: its frames, maps overlaid on them, and a matrix with the scores of each frame.

    Args:
        frames: (T,3,h,w) uint8, RGB.
        path: file of the picture, ending in .png or .svg.
        maps: name -> non-negative values (T,H,W) or (1,T,H,W). Each map is drawn as a row of pictures.
        unit: label of the color bar of the maps.
        scores: (T,K) or (1,T,K), non-negative.
        columns: axis label for the K columns of the score matrix.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. Nothing is written in that case.
    """
    path = picture_path(path)
    check_frames(frames)
    count, _, height, width = frames.shape
    matrix = None if scores is None else _one_clip("scores", scores, count, 2)
    heats = {name: _one_clip(name, value, count, 3) for name, value in (maps or {}).items()}
    pictures = frames.permute(0, 2, 3, 1).cpu().numpy()
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        cell = 1.05
        rows, widths = 1 + len(heats), [max(cell * count, 3)]
        if matrix is not None:
            widths.append(3.4)
        tall = max(rows * cell * height / width, 2)
        figure = Figure(figsize=(sum(widths), tall + 0.65 * rows), layout="constrained")
        figure.suptitle(title)
        left, *right = figure.subfigures(1, len(widths), squeeze=False, width_ratios=widths)[0]
        if matrix is not None:
            _score_matrix(right[0].subplots(), matrix, columns, right[0])
        grid = left.subplots(rows, count, squeeze=False)
        for t, axes in enumerate(grid[0]):
            axes.imshow(pictures[t])
            axes.set_title(f"t = {t + 1}")
        for row, heat in zip(grid[1:], heats.values(), strict=True):
            for t, axes in enumerate(row):
                axes.imshow(pictures[t])
                drawn = overlay(axes, heat[t], (height, width), heat.max())
            scale = left.colorbar(drawn, ax=row.tolist(), location="bottom", aspect=40, ticks=MaxNLocator(5))
            scale.set_label(unit)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, name in zip(grid[:, 0], ("frames", *heats), strict=True):
            axes.set_ylabel(name)
        return save_figure(figure, path)


def plot_parts(
    frames: Tensor, joints: Tensor, path: str | Path, *, scores: Tensor | None = None, title: str = ""
) -> Path:
    """Draw one clip with skeletons and the boxes of its body parts (STAL, Fig. 3 and 12).

    Joints that `nn.part_boxes` ignores are not drawn. A dotted box belongs to a part without known joints.

    Args:
        frames: (T,3,h,w) uint8, RGB.
        joints: (T,14,3), x and y as fractions of the frame's width and height, and confidence.
        path: file of the picture, ending in .png or .svg.
        scores: (T,6), non-negative scores of the parts, drawn as a matrix to the right of the frames.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. Nothing is written in that case.
    """
    path = picture_path(path)
    check_frames(frames)
    if joints.shape != (len(frames), 14, 3):
        raise ValueError(f"joints: expected shape {(len(frames), 14, 3)}, got {tuple(joints.shape)}")
    if scores is not None and scores.shape != (len(frames), len(PART_NAMES)):
        raise ValueError(
            f"scores: expected shape {(len(frames), len(PART_NAMES))}, got {tuple(scores.shape)}"
        )
    height, width = frames.shape[2:]
    counts = known_joints(joints).numpy()
    points = (joints[..., :2] * joints.new_tensor([width, height])).numpy() - 0.5
    boxes = (part_boxes(joints) * joints.new_tensor([width, height, width, height])).numpy() - 0.5
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        tall = 1.5 * height / width
        widths = [max(1.5 * len(frames), 4.5)] + ([4.0] if scores is not None else [])
        figure = Figure(figsize=(sum(widths), max(tall + 0.9, 2.5)), layout="constrained")
        figure.suptitle(title)
        left, *right = figure.subfigures(1, len(widths), squeeze=False, width_ratios=widths)[0]
        if scores is not None:
            matrix = scores.detach().float().cpu().numpy()
            _score_matrix(right[0].subplots(), matrix, "", right[0], names=PART_NAMES)
        for t, axes in enumerate(left.subplots(1, len(frames), squeeze=False)[0]):
            axes.imshow(frames[t].permute(1, 2, 0).cpu().numpy())
            axes.set(xticks=[], yticks=[])
            for first, second in _BONES:
                if counts[t, first] and counts[t, second]:
                    axes.plot(*points[t, [first, second]].T, color="white", linewidth=1.2)
            axes.plot(*points[t, counts[t]].T, "o", color="white", markersize=2)
            for r, (x1, y1, x2, y2) in enumerate(boxes[t]):
                style = "-" if counts[t, list(PART_JOINTS[r])].any() else ":"
                axes.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], style, color=COLORS[r], linewidth=1.3)
        handles = [matplotlib.lines.Line2D([], [], color=COLORS[r]) for r in range(len(PART_NAMES))]
        left.legend(handles, PART_NAMES, loc="outside lower center", ncols=6, fontsize=8)
        return save_figure(figure, path)


def plot_ranking(
    query: Tensor,
    gallery: Sequence[Tensor],
    kinds: Sequence[str],
    distances: Sequence[float],
    path: str | Path,
    *,
    title: str = "",
) -> Path:
    """Draw a query and its retrieved gallery items, nearest first.

    Args:
        query: a frame (3,h,w) uint8, RGB.
        gallery: a frame of each retrieved item; sizes may differ.
        kinds: "hit", "miss" or "junk" for each item. Junk is drawn without a rank.
        distances: distance of each item to the query.
        path: file of the picture, ending in .png or .svg.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        ValueError: the lists are empty or differ in length, or a kind is unknown. Nothing is written in that
            case.
    """
    path = picture_path(path)
    if not gallery or not len(gallery) == len(kinds) == len(distances):
        got = f"{len(gallery)}, {len(kinds)} and {len(distances)}"
        raise ValueError(
            f"gallery, kinds, distances: expected the same length of at least 1, got {got} items"
        )
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"kinds: expected {', '.join(KINDS)}, got {min(unknown)!r}")
    columns = min(11, 1 + len(gallery))
    rows = -(-(1 + len(gallery)) // columns)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.05 * columns, 2.75 * rows), layout="constrained")
        figure.suptitle(title)
        grid = figure.subplots(rows, columns, squeeze=False)
        rank = 0
        places = [(query, "query", None), *zip(gallery, kinds, distances, strict=True)]
        for axes, (frame, kind, distance) in zip(grid.flat, places, strict=False):
            axes.imshow(frame.permute(1, 2, 0).cpu().numpy())
            rank += kind in ("hit", "miss")
            axes.set_title(f"{rank} {kind}" if kind in ("hit", "miss") else kind, fontsize=10)
            axes.set_xlabel("" if distance is None else f"{distance:.3f}", fontsize=9)
            color, dash = KINDS.get(kind, ("#000000", "-"))
            for spine in axes.spines.values():
                spine.set(visible=True, color=color, linestyle=dash, linewidth=2.5)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
        for axes in grid.flat[len(places) :]:
            axes.remove()
        return save_figure(figure, path)


def _score_matrix(
    axes: Axes, scores: np.ndarray, columns: str, figure: Any, names: Sequence[str] = ()
) -> None:
    count, blocks = scores.shape
    image = axes.imshow(scores, cmap="viridis", vmin=0, aspect="auto")
    middle = scores.max() / 2
    if count * blocks <= 64:
        for (t, k), score in np.ndenumerate(scores):
            color = "white" if score < middle * 1.2 else "black"
            axes.text(k, t, f"{score:.2f}", ha="center", va="center", color=color)
    axes.set_xticks(range(blocks), names or [str(k + 1) for k in range(blocks)], rotation=45 if names else 0)
    axes.set_yticks(range(count), [str(t + 1) for t in range(count)])
    axes.set(xlabel=columns, ylabel="frame t", title="scores")
    figure.colorbar(image, ax=axes)


def check_frames(frames: Tensor) -> None:
    """Check that `frames` is a clip (T,3,h,w) uint8."""
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames: expected torch.uint8, got {frames.dtype}")
    if frames.dim() != 4 or frames.shape[1] != 3 or not len(frames):
        raise ValueError(f"frames: expected shape (T,3,h,w), got {tuple(frames.shape)}")


def overlay(axes: Axes, values: np.ndarray, size: tuple[int, int], largest: float) -> AxesImage:
    """Overlay a non-negative map on a picture of `size` (h,w); the colors range from 0 to `largest`."""
    height, width = size
    return axes.imshow(
        values, cmap="viridis", alpha=0.6, vmin=0, vmax=largest,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="bicubic",
    )  # fmt: skip


def _one_clip(name: str, value: Tensor, frames: int, dims: int) -> np.ndarray:
    clip = value[0] if value.dim() == dims + 1 and len(value) == 1 else value
    if clip.dim() != dims or len(clip) != frames:
        shape = "(1,T,K)" if name == "scores" else "(1,T,H,W)"
        raise ValueError(f"{name}: expected shape {shape} with T = {frames}, got {tuple(value.shape)}")
    return clip.detach().float().cpu().numpy()

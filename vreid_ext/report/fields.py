"""Pictures of the receptive fields of several spatial attentions."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from torch import Tensor

from vreid_ext.report.clips import check_frames, overlay
from vreid_ext.report.style import STYLE, picture_path, save_figure


def plot_receptive_fields(frames: Tensor, weights: Tensor, path: str | Path, *, title: str = "") -> Path:
    """Draw the receptive fields of K spatial attentions (DRSTA, Figure 3), one row per frame.

    Args:
        frames: (T,3,h,w) uint8, RGB; the first four are drawn.
        weights: receptive fields (T,K,H,W), each a distribution over the cells. The colors of each field
            range from 0 to its largest weight.
        path: file of the picture, ending in .png or .svg.
        title: title of the picture.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value. Nothing is written in that case.
    """
    path = picture_path(path)
    check_frames(frames)
    if weights.dim() != 4 or len(weights) != len(frames):
        got = tuple(weights.shape)
        raise ValueError(f"weights: expected shape (T,K,H,W) with T = {len(frames)}, got {got}")
    pictures = frames[:4].permute(0, 2, 3, 1).cpu().numpy()
    fields = weights[:4].detach().float().cpu().numpy()
    count, regions = fields.shape[:2]
    height, width = frames.shape[2:]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        size = (1.05 * (regions + 1), 1.05 * count * height / width + 0.7)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(title)
        grid = figure.subplots(count, regions + 1, squeeze=False)
        for t in range(count):
            for k in range(regions + 1):
                axes = grid[t, k]
                axes.imshow(pictures[t])
                if k:
                    field = fields[t, k - 1]
                    overlay(axes, field, (height, width), field.max())
                if t == 0:
                    axes.set_title(f"k = {k}" if k else "frame")
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
        return save_figure(figure, path)

"""Style and output of plots: palette, line styles, PNG or SVG by the suffix of the file.

pyplot is not used, so no display is needed and the figures of the caller are not affected.
"""

import textwrap
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vreid_ext._files import whole_file
from vreid_ext.report.fonts import make_readable

SUFFIXES = (".png", ".svg")

# The palette of Okabe and Ito, without its yellow: distinguishable with all forms of color blindness.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")

STYLE: Any = {  # Any: matplotlib's type for a style lists all keys, and a plain dict does not match it
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "vreid_ext",  # reproducible IDs in SVG files
}


def picture_path(path: str | Path) -> Path:
    """Check that the suffix of a picture's path is supported, and return the path."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: expected a name that ends in .png or .svg, got {str(path)!r}")
    return path


def save_figure(figure: Figure, path: Path) -> Path:
    """Apply `fonts.make_readable` to the figure and write it. Missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_readable(figure)
    # No date, so that the SVG is reproducible.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata, format=path.suffix[1:].lower())
    return path


def wrapped(label: str) -> str:
    """A label in lines that fit into a legend, such as the path of a run."""
    return textwrap.fill(label, 44)


def line_style(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
        "linewidth": 1.8,
    }

"""How pictures look and are written: palette, line styles, PNG or SVG by the file's suffix.

Figures are drawn without pyplot: no display is needed, and plots of the caller are not touched.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vreid_ext._files import whole_file
from vreid_ext.report.fonts import make_readable

SUFFIXES = (".png", ".svg")

# Okabe and Ito's palette without its yellow: apart in hue and in lightness for every kind of colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":")

STYLE: Any = {  # matplotlib types a style key by key, which a plain dict does not satisfy
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": "vreid_ext",  # the same drawing gives the same bytes
}


def picture_path(path: str | Path) -> Path:
    """The path of a picture, whose suffix is one that can be written."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"path: expected a name that ends in .png or .svg, got {str(path)!r}")
    return path


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure, its texts made readable (`fonts.make_readable`); folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_readable(figure)
    # Without the date an SVG depends on its content alone.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
    with whole_file(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata, format=path.suffix[1:].lower())
    return path


def line_style(number: int) -> dict[str, Any]:
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
        "linewidth": 1.8,
    }

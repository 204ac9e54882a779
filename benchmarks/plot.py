"""Draw benchmark rows: for each case, the time of every baseline and limit relative to ours.

    python benchmarks/plot.py [ROWS.json ...] [--out FOLDER]

By default every file NAME.json in benchmarks/results is drawn to docs/img/bench_NAME.svg.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from tables import duration

from vreid_ext.report.style import COLORS, STYLE, save_figure

ROOT = Path(__file__).parents[1]
MARKERS = "osD^vP*X"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "rows", nargs="*", type=Path, default=sorted((ROOT / "benchmarks/results").glob("*.json"))
    )
    parser.add_argument("--out", type=Path, default=ROOT / "docs/img")
    arguments = parser.parse_args()
    for file in arguments.rows:
        print(draw(file, arguments.out / f"bench_{file.stem}.svg"))


def draw(file: Path, path: Path) -> Path:
    """One line per case, one marker per provider. Ours is at 1; markers to the left of 1 are faster."""
    content = json.loads(file.read_text())
    rows, machine = content["rows"], content["machine"]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    providers = [name for name in dict.fromkeys(row["provider"] for row in rows) if name != "ours"]
    ours = {row["case"]: row["median"] for row in rows if row["provider"] == "ours"}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.5 + 0.42 * len(cases)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(1, color="black", linewidth=1.5)
        for number, name in enumerate(providers):
            points = [(row["per_ours"], cases.index(row["case"])) for row in rows if row["provider"] == name]
            color, marker = COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)]
            axes.plot(*zip(*points, strict=True), marker, color=color, label=name, markersize=7)
        axes.set_yticks(range(len(cases)), [f"{case}\n{duration(ours[case])}" for case in cases], fontsize=9)
        axes.set_ylim(len(cases) - 0.5, -0.5)
        axes.set_xscale("log")
        shown = [row["per_ours"] for row in rows]
        wide = max(shown) > 1000 * min(shown)  # so many decades that the labels between them would overlap
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel("time / time of ours")
        fields = ("gpu", "cpu", "threads", "torch", "date", "commit")
        title = ", ".join(f"{name} {machine[name]}" for name in fields if name in machine)
        figure.suptitle(title, fontsize=8)
        figure.legend(loc="outside lower center", ncols=3, fontsize=9)
        return save_figure(figure, path)


if __name__ == "__main__":
    main()

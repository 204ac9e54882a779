"""Demo: trains two models on a rendered set and draws the results. Takes minutes on two CPU cores.

Nothing is downloaded: the people are rendered and the backbones are initialized randomly.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vreid_ext.data.synth import synthesize
from vreid_ext.engine.build import dataset_of
from vreid_ext.engine.config import load_recipe
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.run_comparison import differences_or_reason, summary
from vreid_ext.engine.train import train
from vreid_ext.report import plot_cmc, plot_curves
from vreid_ext.report.attention import picture_attention
from vreid_ext.report.page import report_checkpoint

SYSTEMS = {"average pooling": "synth_avg", "STA": "synth_sta"}
SET = {"layout": "mars", "ids": 60, "cameras": 4, "tracklets": 2, "frames": 8, "size": [64, 32]}
PICTURES = 3


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    settings: dict[str, Any] | None = None,
    quiet: bool = False,
) -> dict[str, dict[str, Any]]:
    """Render a set, train average pooling and STA on it, print results and draw pictures.

    Printed are a table of the results and the difference between the two models with its interval
    (`metrics.compare`).

    Writes to `out`: `set/` (rendered once, then reused), `average-pooling/` and `sta/` (runs; an interrupted
    run is resumed), `report.html` with both models and the ranked lists of STA, `curves.png`, `cmc.png` and
    `attention-1.png` to `attention-3.png`.

    Args:
        out: a new folder, or the folder of an earlier demo with the same arguments.
        seed: seed of the set and of the training.
        epochs: number of training epochs; None: as in the recipes.
        settings: arguments of `synthesize`, except the seed, that override those of the demo.
        quiet: print nothing.

    Returns:
        For each model the metrics of its evaluation: mAP, mINP, rank1, rank5, cmc and so on, as fractions.

    Raises:
        ValueError: `out` contains another set, or other files.
    """
    out = Path(out)
    console = Console(quiet=quiet)
    data_root = _render(out / "set", {**SET, **(settings or {}), "seed": seed}, console)
    rows, runs = {}, {}
    for system, recipe_name in SYSTEMS.items():
        console.print(f"training {system} ({recipe_name})")
        overrides = [f"dataset.root={data_root}", f"seed={seed}"]
        overrides += [] if epochs is None else [f"train.epochs={epochs}"]
        runs[system] = out / system.lower().replace(" ", "-")
        rows[system] = train(load_recipe(recipe_name, overrides), runs[system], quiet=quiet)["rows"][0]

    plot_curves({system: run / "log.jsonl" for system, run in runs.items()}, out / "curves.png")
    plot_cmc({system: row["cmc"][:20] for system, row in rows.items()}, out / "cmc.png")
    _picture_attention(runs["STA"], out)
    beside = {"average pooling": runs["average pooling"]}
    page = report_checkpoint(runs["STA"], figures=out / "report.json", beside=beside)["page"]
    console.print(_table(rows))
    differences = differences_or_reason({system: [run] for system, run in runs.items()})
    console.print(*map(summary, differences), sep="\n", markup=False, soft_wrap=True)
    pictures = f"pictures: {out}/curves.png, cmc.png, attention-1.png ... attention-{PICTURES}.png"
    console.print(pictures, markup=False, soft_wrap=True)
    console.print(f"report (open it in a browser): {page}", markup=False, soft_wrap=True)
    return rows


def _render(root: Path, settings: dict[str, Any], console: Console) -> Path:
    """Render the set with these settings, unless it exists already."""
    file = root / "synth.json"
    if file.is_file():
        existing = json.loads(file.read_text(encoding="utf-8"))
        if existing != settings:
            raise ValueError(
                f"out: expected a set rendered with {settings} in {root}, got {existing}; "
                "choose another folder"
            )
        return root
    with Progress(console=console) as bar:
        task = bar.add_task("rendering people", total=None)
        size = tuple(settings["size"])
        return synthesize(
            root,
            **{**settings, "size": size},
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _picture_attention(run: Path, out: Path) -> None:
    """Draw the attention on clips of queries that are evenly spaced in the list of queries."""
    model, recipe, _ = open_checkpoint(run)
    queries = dataset_of(recipe.dataset).query
    for number in range(PICTURES):
        tracklet = queries[number * len(queries) // PICTURES]
        picture_attention(model, recipe, tracklet, out / f"attention-{number + 1}.png")


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table("system", title="synthetic set, cross-camera retrieval (%)")
    figures = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5"}
    for heading in figures.values():
        table.add_column(heading, justify="right")
    for system, row in rows.items():
        table.add_row(system, *(f"{100 * row[figure]:.1f}" for figure in figures))
    return table

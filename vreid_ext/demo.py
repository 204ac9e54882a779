"""Demo: trains a model on a rendered set and compares two poolings on test tracklets with corrupted frames.

It takes minutes on two CPU cores. Nothing is downloaded: the people are rendered and the backbone is
initialized randomly.
"""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vreid_ext.data import Tracklet, sample_clip
from vreid_ext.data.synth import synthesize
from vreid_ext.engine.build import corruption_of, dataset_of
from vreid_ext.engine.config import load_recipe
from vreid_ext.engine.evaluate import evaluate_checkpoint
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.run_comparison import differences_or_reason, summary
from vreid_ext.engine.train import train
from vreid_ext.report import plot_cmc, plot_curves
from vreid_ext.report.attention import picture_attention
from vreid_ext.report.page import report_checkpoint

RECIPE = "synth_frame"
AVERAGE, CONSENSUS = "average pooling", "consensus pooling"
POOLINGS = {AVERAGE: [], CONSENSUS: ["model.pooling=consensus"]}
CONDITIONS = {"clean": [], "corrupted": ["eval.corrupt=0.333"]}
SET = {"layout": "mars", "ids": 60, "cameras": 4, "tracklets": 2, "frames": 8, "size": [128, 64]}
PICTURES = 3


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    epochs: int | None = None,
    settings: dict[str, Any] | None = None,
    quiet: bool = False,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Render a set, train a model on single frames, and evaluate it with average and with consensus pooling.

    Both poolings are evaluated with the frames as they are and with a third of them corrupted
    (`data.Corruption`). Printed are a table of the results and the differences with their intervals
    (`metrics.compare`).

    Writes to `out`: `set/` (rendered once, then reused), `run/` (an interrupted run is resumed), the figures
    of the four evaluations as JSON, `report.html` with the ranked lists of consensus pooling on the corrupted
    set, `curves.png`, `cmc.png`, and `attention-1.png` to `attention-3.png` with the weights of clips that
    have a corrupted frame.

    Args:
        out: a new folder, or the folder of an earlier demo with the same arguments.
        seed: seed of the set and of the training.
        epochs: number of training epochs; None: as in the recipe.
        settings: arguments of `synthesize`, except the seed, that override those of the demo.
        quiet: print nothing.

    Returns:
        For each pooling and condition ("clean", "corrupted") the metrics of the evaluation: mAP, mINP, rank1,
        rank5, cmc and so on, as fractions.

    Raises:
        ValueError: `out` contains another set, or other files.
    """
    out = Path(out)
    console = Console(quiet=quiet)
    data_root = _render(out / "set", {**SET, **(settings or {}), "seed": seed}, console)
    console.print(f"training ({RECIPE})")
    overrides = [f"dataset.root={data_root}", f"seed={seed}"]
    overrides += [] if epochs is None else [f"train.epochs={epochs}"]
    run = out / "run"
    train(load_recipe(RECIPE, overrides), run, quiet=quiet)

    console.print("evaluation with and without corrupted frames")
    files = {
        (pooling, condition): out / f"{pooling.split()[0]}-{condition}.json"
        for pooling in POOLINGS
        for condition in CONDITIONS
    }
    files[CONSENSUS, "corrupted"] = out / "report.json"
    rows: dict[str, dict[str, dict[str, Any]]] = {pooling: {} for pooling in POOLINGS}
    for (pooling, condition), file in files.items():
        overrides = [*POOLINGS[pooling], *CONDITIONS[condition]]
        if file.stem == "report":
            beside = {AVERAGE: files[AVERAGE, "corrupted"]}
            result = report_checkpoint(run, overrides, figures=file, beside=beside)
        else:
            result = evaluate_checkpoint(run, overrides, out=file)
        rows[pooling][condition] = result["rows"][0]
    plot_curves({RECIPE: run / "log.jsonl"}, out / "curves.png")
    plot_cmc({pooling: row["corrupted"]["cmc"][:20] for pooling, row in rows.items()}, out / "cmc.png")
    _picture_attention(run, [*POOLINGS[CONSENSUS], *CONDITIONS["corrupted"]], out)

    console.print(_table(rows))
    for condition in CONDITIONS:
        differences = differences_or_reason({pooling: [files[pooling, condition]] for pooling in POOLINGS})
        console.print(f"{condition}:", *map(summary, differences), markup=False, soft_wrap=True)
    pictures = f"pictures: {out}/curves.png, cmc.png, attention-1.png ... attention-{PICTURES}.png"
    console.print(pictures, markup=False, soft_wrap=True)
    console.print(f"report (open it in a browser): {out}/report.html", markup=False, soft_wrap=True)
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


def _picture_attention(run: Path, overrides: list[str], out: Path) -> None:
    """Draw the weights of clips that have a corrupted frame, of some queries."""
    model, recipe, _ = open_checkpoint(run, overrides)
    data = dataset_of(recipe.dataset)
    corruption = corruption_of(recipe.eval, data)

    def corrupted_frames(tracklet: Tracklet) -> int:
        chosen = sample_clip(len(tracklet), recipe.eval.frames[0], "evenly").tolist()
        return sum(corruption is not None and corruption.corrupts(tracklet, frame) for frame in chosen)

    queries = [tracklet for tracklet in data.query if corrupted_frames(tracklet) == 1] or data.query
    for number in range(PICTURES):
        tracklet = queries[number * len(queries) // PICTURES]
        file = out / f"attention-{number + 1}.png"
        picture_attention(model, recipe, tracklet, file, corruption=corruption)


def _table(rows: dict[str, dict[str, dict[str, Any]]]) -> Table:
    table = Table("pooling", "frames", title="rendered set, cross-camera retrieval (%)")
    figures = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5"}
    for heading in figures.values():
        table.add_column(heading, justify="right")
    for pooling, conditions in rows.items():
        for condition, row in conditions.items():
            table.add_row(pooling, condition, *(f"{100 * row[figure]:.1f}" for figure in figures))
    return table

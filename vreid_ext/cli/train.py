"""`vreid train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vreid_ext.cli.app import Json, Overrides, Splits, app
from vreid_ext.cli.output import RESUMES, emit_figures, emit_splits, interruptible

if TYPE_CHECKING:
    from vreid_ext.engine import Recipe


@app.command(epilog="Example: vreid train sta_mars dataset.root=MARS optim.lr=1e-4 --out runs/first")
def train(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A name (see `vreid recipes`), or the path of a YAML file."),
    ],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; default runs/RECIPE.")] = None,
    as_json: Json = False,
    splits: Splits = None,
) -> None:
    """Train a recipe and evaluate it. The same command resumes an interrupted run.

    With --splits, each split has its own run in OUT/split-NUMBER.

    Several GPUs: torchrun --nproc-per-node N -m vreid_ext train ...
    """
    from vreid_ext import engine

    loaded = engine.load_recipe(recipe, overrides or [])
    folder = out or Path("runs") / loaded.name
    if loaded.loss.dvdp:
        import vreid_ext.report  # noqa: F401  reports a missing package now, not at the end of the training
    if splits is not None:
        from vreid_ext.engine.splits import parse_splits, split_folder, train_splits

        with interruptible(RESUMES):
            numbers = parse_splits(splits)
            summary = train_splits(loaded, folder, numbers)
        if summary:
            for number in numbers:
                _draw(loaded, split_folder(folder, number))
            emit_splits(summary, as_json)
        return
    with interruptible(RESUMES):
        result = engine.train(loaded, folder)
    if result:
        _draw(loaded, folder)
        emit_figures(result | {"run": str(folder)}, as_json, f"run: {folder}")


def _draw(recipe: "Recipe", run: Path) -> None:
    """Draw DVDP and mAP over the epochs of a run (ASTA, Fig. 7) if the recipe logs DVDP."""
    if recipe.loss.dvdp:
        from vreid_ext.report import plot_dvdp

        plot_dvdp({recipe.name: run / "log.jsonl"}, run / "dvdp.png")

"""Protocols with several splits: a run for each, and the mean and deviation of their figures."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from vreid_ext._files import write_json
from vreid_ext.data.readers.two_cameras import SPLITS
from vreid_ext.distributed import is_main, join_processes
from vreid_ext.engine.build import datasets_of, sampler_of
from vreid_ext.engine.checkpoint import checkpoints, read_state, resolve_checkpoint
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.config import recipe_from_dict
from vreid_ext.engine.evaluate import evaluate_checkpoint
from vreid_ext.engine.readiness import check_images, images_of
from vreid_ext.engine.recipe import Recipe
from vreid_ext.engine.train import is_finished, train

WITH_SPLITS = ("ilids", "prid")
FIGURES = ("mAP", "rank1", "rank5", "rank10", "rank20")


def parse_splits(text: str) -> list[int]:
    """Split numbers from "all" or a list such as "0,3"."""
    if text == "all":
        return list(range(SPLITS))
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 0 or numbers[-1] >= SPLITS:
        raise ValueError(
            f"splits: expected 'all' or numbers from 0 to {SPLITS - 1}, such as 0,3, got {text!r}"
        )
    return numbers


def train_splits(
    recipe: Recipe, out: str | Path, splits: Sequence[int], *, quiet: bool = False
) -> dict[str, Any]:
    """Train the recipe once for each split, in `out/split-<number>`, and average the figures.

    Splits that are finished are not trained again, one that was interrupted goes on. People and images of all
    splits are looked at before the first is trained.

    Returns:
        What `average` makes of the runs' results, also written to `out/splits.json`.

    Raises:
        ValueError: as `train`; the data set has no splits.
    """
    out = Path(out)
    join_processes()
    images: dict[tuple[str, ...], None] = {}
    for number in splits:
        split = _of_split(recipe, number)
        if not is_finished(split_folder(out, number), split):
            datasets = datasets_of(split)
            sampler_of(split, datasets)
            for test in map(Comparison, datasets):
                test.first_match()
                images |= dict.fromkeys(images_of(split, test))
    check_images(images)
    results = [train(_of_split(recipe, number), split_folder(out, number), quiet=quiet) for number in splits]
    # Only the main process of several has results.
    return average(results, splits, out / "splits.json") if all(results) else {}


def evaluate_splits(
    path: str | Path,
    overrides: Iterable[str],
    splits: Sequence[int],
    *,
    out: Path | None = None,
) -> dict[str, Any]:
    """Evaluate each split and average the figures.

    Args:
        path: the folder that `train_splits` filled: each split is evaluated with the model that was trained
            on it. Or a checkpoint, or the run that holds it, of a model trained on another data set.
        overrides: `key=value` on top of the checkpoint's recipe.
        out: the JSON file; `splits-eval.json` in `path` unless given.

    Raises:
        ValueError: no run of a split, or a model that was trained on people whom other splits test.
    """
    path, overrides = Path(path), list(overrides)
    whole = any(path.glob("split-*"))
    if not whole:
        _check_foreign(path, overrides)
    models = {number: split_folder(path, number) if whole else path for number in splits}
    for number, model in models.items():
        if not model.exists():
            raise ValueError(f"splits: {str(path)!r} holds no run of split {number}; train it first")
    changes = {}
    for number, model in models.items():
        trained = read_state(resolve_checkpoint(model))["recipe"]
        changes[number] = [*overrides, *_split(recipe_from_dict(trained, overrides), number)]
        for data in datasets_of(recipe_from_dict(trained, changes[number])):
            Comparison(data).first_match()
    results = []
    for number, model in models.items():
        file = (out or path / "splits-eval.json").with_suffix(f".{number}.json")
        results.append(evaluate_checkpoint(model, changes[number], out=file))
    return average(results, splits, out or path / "splits-eval.json")


def average(results: Sequence[dict[str, Any]], splits: Sequence[int], file: Path) -> dict[str, Any]:
    """Mean and sample standard deviation over the splits of every figure, test length by test length.

    The deviation is zero for one split. Written to `file` as JSON, with the figures of each split.
    """
    rows = []
    for alike in zip(*(result["rows"] for result in results), strict=True):
        same_row = ("dataset", "frames", "sampling")
        row: dict[str, Any] = {name: alike[0][name] for name in same_row if name in alike[0]}
        for name in FIGURES:
            if all(name in single for single in alike):
                values = [single[name] for single in alike]
                deviation = stdev(values) if len(values) > 1 else 0.0
                row[name] = {"mean": fmean(values), "deviation": deviation, "splits": values}
        if "paper_percent" in alike[0]:
            row["paper_percent"] = alike[0]["paper_percent"]
        rows.append(row)
    same = {name: results[0][name] for name in ("recipe", "dataset", "metric", "ap", "paper")}
    protocols = [result["protocol"] for result in results]
    summary = {**same, "splits": list(splits), "protocols": protocols, "rows": rows, "file": str(file)}
    if is_main():
        write_json(file, summary)
    return summary


def _of_split(recipe: Recipe, number: int) -> Recipe:
    return recipe_from_dict(recipe.to_dict(), _split(recipe, number))


def _split(recipe: Recipe, number: int) -> list[str]:
    """The overrides that choose a split of the data set, or of those of several that have any."""
    if not recipe.also:
        return [f"dataset.options.split={number}"]
    chosen = [
        f"dataset.{n}.options.split={number}"
        for n, each in enumerate(recipe.datasets)
        if each.name in WITH_SPLITS
    ]
    if not chosen:
        raise ValueError(f"splits: expected one of {', '.join(WITH_SPLITS)} among the data sets, got none")
    return chosen


def split_folder(path: Path, number: int) -> Path:
    return path / f"split-{number}"


def _check_foreign(path: Path, overrides: list[str]) -> None:
    """A single model must not have been trained on the people that it is to be tested on."""
    folder = path if (path / "state.json").is_file() else next(reversed(checkpoints(path)), None)
    if folder is None:
        raise ValueError(f"checkpoint: {str(path)!r} holds neither a checkpoint nor runs of splits")
    recipe = read_state(folder)["recipe"]
    trained, tested = (
        {each.name for each in recipe_from_dict(recipe, some).datasets} for some in ([], overrides)
    )
    if trained & tested:
        raise ValueError(
            f"splits: the model of {str(path)!r} was trained on one split of {min(trained & tested)!r} and "
            "knows people whom the others test; train every split with `vreid train ... --splits all`"
        )

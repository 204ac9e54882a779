"""Protocols with several splits: one run per split, and mean and standard deviation of the metrics."""

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
    """Parse "all" or a comma-separated list of split indices, e.g. "0,3"."""
    if text == "all":
        return list(range(SPLITS))
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 0 or numbers[-1] >= SPLITS:
        raise ValueError(f"splits: expected 'all' or indices from 0 to {SPLITS - 1}, e.g. 0,3, got {text!r}")
    return numbers


def train_splits(
    recipe: Recipe, out: str | Path, splits: Sequence[int], *, quiet: bool = False
) -> dict[str, Any]:
    """Train the recipe once for each split, in `out/split-<number>`, and average the metrics.

    Finished splits are skipped, and an interrupted one is resumed. The people and images of all splits are
    checked before the first one is trained.

    Args:
        recipe: the recipe.
        out: output folder.
        splits: indices of the splits.
        quiet: do not show a progress bar.

    Returns:
        The result of `average`, which rank 0 also writes to `out/splits.json`. Empty on a rank that has no
        result of a run.

    Raises:
        ValueError: see `train`; also if the data set has no splits.
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
    # `train` may return an empty result on ranks other than 0.
    return average(results, splits, out / "splits.json") if all(results) else {}


def evaluate_splits(
    path: str | Path,
    overrides: Iterable[str],
    splits: Sequence[int],
    *,
    out: Path | None = None,
) -> dict[str, Any]:
    """Evaluate each split and average the metrics.

    Args:
        path: the output folder of `train_splits`: each split is evaluated with the model trained on it. Or a
            single checkpoint or run of a model that was trained on another data set.
        overrides: `key=value` overrides for the checkpoint's recipe.
        splits: indices of the splits.
        out: the JSON file; default: `splits-eval.json` in `path`.

    Raises:
        ValueError: a split has no run, or a single model was trained on test people of another split.
    """
    path, overrides = Path(path), list(overrides)
    has_splits = any(path.glob("split-*"))
    if not has_splits:
        _check_foreign(path, overrides)
    models = {number: split_folder(path, number) if has_splits else path for number in splits}
    for number, model in models.items():
        if not model.exists():
            raise ValueError(
                f"splits: expected a run of split {number} in {str(path)!r}, got none; train it first"
            )
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
    """Mean and sample standard deviation of each metric over the splits, for each test length.

    The deviation of a single split is 0. The result, which includes the metrics of each split, is written to
    `file` as JSON.
    """
    rows = []
    for split_rows in zip(*(result["rows"] for result in results), strict=True):
        first = split_rows[0]
        row: dict[str, Any] = {key: first[key] for key in ("dataset", "frames", "sampling") if key in first}
        for name in FIGURES:
            if all(name in each for each in split_rows):
                values = [each[name] for each in split_rows]
                deviation = stdev(values) if len(values) > 1 else 0.0
                row[name] = {"mean": fmean(values), "deviation": deviation, "splits": values}
        if "paper_percent" in first:
            row["paper_percent"] = first["paper_percent"]
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
    """The overrides that select a split, in all data sets of the recipe that have splits."""
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
    """Check that a single model was not trained on one of the test data sets.

    The training people of one split are test people of other splits.
    """
    folder = path if (path / "state.json").is_file() else next(reversed(checkpoints(path)), None)
    if folder is None:
        raise ValueError(
            f"checkpoint: expected a checkpoint, a run or a folder with runs of splits, got {str(path)!r}"
        )
    recipe = read_state(folder)["recipe"]
    trained, tested = (
        {each.name for each in recipe_from_dict(recipe, some).datasets} for some in ([], overrides)
    )
    if trained & tested:
        raise ValueError(
            f"splits: expected a model that was not trained on {min(trained & tested)!r}, because the test "
            f"people of one split are training people of another, got {str(path)!r}; train each split with "
            "`vreid train ... --splits all`"
        )

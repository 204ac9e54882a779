"""Metrics for each pair of query and gallery clip lengths (STAL, Fig. 11)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vreid_ext._files import write_json
from vreid_ext.data import TrackletDataset
from vreid_ext.distributed import default_device, is_main, main_writes
from vreid_ext.engine.build import one_dataset_of
from vreid_ext.engine.checkpoint import run_folder
from vreid_ext.engine.comparison import Comparison, metric_of
from vreid_ext.engine.extract import extract_features
from vreid_ext.engine.features import extraction, parts
from vreid_ext.engine.open import open_checkpoint
from vreid_ext.engine.recipe import Recipe

Length = int | Literal["all"]

LENGTHS: tuple[Length, ...] = (1, 2, 4, 8, 16, 32, 64, 128, "all")


def evaluate_lengths(
    model: nn.Module,
    dataset: TrackletDataset,
    recipe: Recipe,
    lengths: Sequence[Length] = LENGTHS,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate one model for each pair of a query clip length and a gallery clip length.

    As in the paper, a clip of L frames is drawn at random without replacement. If the tracklet is shorter,
    the clip contains all its frames and additional ones drawn with replacement. The clips depend only on
    `recipe.seed`. The length "all" uses each frame once.

    Args:
        lengths: clip lengths, at least one: numbers of frames or "all".

    Returns:
        A dict that can be written as JSON: recipe, dataset, protocol, lengths, and the matrices rank1 and mAP
        (fractions, rows are query lengths, columns are gallery lengths).

    Raises:
        ValueError: a length is neither a positive integer nor "all", or there are none.
    """
    lengths = list(lengths)
    for length in lengths:
        if length != "all" and (not isinstance(length, int) or length < 1):
            raise ValueError(f"lengths: expected integers >= 1 or 'all', got {length!r}")
    if not lengths:
        raise ValueError("lengths: expected at least one, got none")
    test = Comparison(dataset)
    test.first_match()
    features = [_features(model, test, recipe, length, device, progress) for length in lengths]
    metric = metric_of(model, recipe)
    results = [
        [test.evaluate(q[test.query], g[test.gallery], recipe, metric) for g in features] for q in features
    ]
    return {
        "recipe": recipe.name,
        "dataset": dataset.name,
        "protocol": dataset.protocol,
        "lengths": lengths,
        "rank1": [[result.rank(1) for result in row] for row in results],
        "mAP": [[result.mAP for result in row] for row in results],
    }


def evaluate_checkpoint_lengths(
    path: str | Path,
    overrides: Iterable[str] = (),
    lengths: Sequence[Length] = LENGTHS,
    *,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Call `evaluate_lengths` for a checkpoint and write the result as JSON.

    Args:
        path: checkpoint or run folder.
        overrides: see `evaluate_checkpoint`.
        out: the JSON file; default: `lengths-<data set>.json` in the run's folder.

    Returns:
        The result of `evaluate_lengths`, with the additional keys `checkpoint` and `file`.
    """
    model, recipe, folder = open_checkpoint(path, overrides)
    dataset = one_dataset_of(recipe)
    device = default_device()
    file = out or run_folder(folder) / f"lengths-{recipe.dataset.name}.json"
    with main_writes("out", file):
        result = evaluate_lengths(
            model.to(device), dataset, recipe, lengths, device=device, progress=progress
        )
        result |= {"checkpoint": str(folder), "file": str(file)}
        if is_main():
            write_json(file, result)
    return result


def _features(
    model: nn.Module,
    test: Comparison,
    recipe: Recipe,
    length: Length,
    device: torch.device | str,
    progress: Callable[[int, int], None] | None,
) -> Tensor:
    default = recipe.input.frames
    frames = default if length == "all" else length
    options = extraction(model, recipe, test, frames, device, progress)
    options["sampling"] = "dense" if length == "all" else "random"
    # Keep the number of frames per forward pass, and thus the memory use, independent of the length.
    options["chunk"] = max(1, recipe.eval.chunk * default // frames)
    return parts(model, extract_features(model, test.tracklets, **options))["features"]

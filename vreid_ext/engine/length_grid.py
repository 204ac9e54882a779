"""Figures for every pair of query and gallery lengths (STAL, Fig. 11)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vreid_ext._files import write_json
from vreid_ext.data import TrackletDataset
from vreid_ext.distributed import default_device, is_main, main_writes
from vreid_ext.engine.build import black_box_of, one_dataset_of, transforms_of
from vreid_ext.engine.comparison import Comparison, metric_of
from vreid_ext.engine.extract import extract_features
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
    """Evaluate one model with clips of every length, for queries and gallery apart.

    A clip of L frames is drawn at random, as the paper does: without replacement, and where the tracklet is
    shorter all its frames and others again. It depends on `recipe.seed` alone. "all" takes every frame once.

    Args:
        lengths: at least one, each a number of frames or "all".

    Returns:
        A JSON-ready dict: recipe, dataset, protocol, lengths, and the matrices rank1 and mAP: fractions, a
        row for each query length and a column for each gallery length.

    Raises:
        ValueError: a length that is no positive number and not "all".
    """
    lengths = list(lengths)
    for length in lengths:
        if length != "all" and (not isinstance(length, int) or length < 1):
            raise ValueError(f"lengths: expected numbers of frames of at least 1, or 'all', got {length!r}")
    if not lengths:
        raise ValueError("lengths: expected at least one, got none")
    test = Comparison(dataset)
    test.first_match()
    features = [_features(model, test, recipe, length, device, progress) for length in lengths]
    metric = metric_of(model, recipe)
    results = [
        [test.evaluate(mine[test.query], theirs[test.gallery], recipe, metric) for theirs in features]
        for mine in features
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
    """`evaluate_lengths` of a checkpoint; writes the figures.

    Args:
        path: checkpoint or run folder.
        overrides: as for `evaluate_checkpoint`.
        out: the JSON file; by default `lengths-<data set>.json` in the checkpoint's run.

    Returns:
        What `evaluate_lengths` returns, with `checkpoint` and `file`.
    """
    model, recipe, folder = open_checkpoint(path, overrides)
    dataset = one_dataset_of(recipe)
    device = default_device()
    file = out or folder.parent.parent / f"lengths-{recipe.dataset.name}.json"
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
    usual = recipe.input.frames
    frames = usual if length == "all" else length
    return extract_features(
        model,
        test.tracklets,
        frames=frames,
        sampling="dense" if length == "all" else "random",
        transform=transforms_of(recipe.input)[1],
        # As many frames in one forward pass as clips of the usual length have.
        chunk=max(1, recipe.eval.chunk * usual // frames),
        workers=recipe.train.workers,
        device=device,
        progress=progress,
        black_box=black_box_of(recipe.dataset),
        seed=recipe.seed,
    )

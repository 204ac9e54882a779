"""Checks before the first step of a run, for errors that would otherwise occur after hours of training."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain

import torch
from torch import nn

from vreid_ext.data import TrackletDataset, read_image, sample_clip
from vreid_ext.distributed import world
from vreid_ext.engine.comparison import Comparison
from vreid_ext.engine.evaluate import evaluate_sets
from vreid_ext.engine.recipe import Recipe
from vreid_ext.engine.seeds import seed_of


def check_batch(recipe: Recipe, model: nn.Module) -> None:
    """Check that batches contain the pairs that the losses compare, and enough clips for batch normalization.

    Raises:
        ValueError: `batch.p` or `batch.k` is too small.
    """
    p, k, loss = recipe.batch.p, recipe.batch.k, recipe.loss
    for name in ("triplet", "part_triplet"):
        if getattr(loss, name) and min(p, k) < 2:
            raise ValueError(
                f"batch.p, batch.k: expected at least 2 each, because loss.{name} requires positives and "
                f"negatives, got {p} and {k}"
            )
    for name in ("aitl", "itl"):
        if getattr(loss, name) and k < 2:
            raise ValueError(
                f"batch.k: expected at least 2, because loss.{name} compares clips of one person, got {k}"
            )
    _, processes = world()
    if p * k == processes and any(isinstance(module, nn.BatchNorm1d) for module in model.modules()):
        raise ValueError(
            "batch.p, batch.k: expected more than one clip per process, because the model uses batch "
            f"normalization, got {p} persons x {k} clips for {processes} processes"
        )


def images_of(recipe: Recipe, test: Comparison) -> list[tuple[str, ...]]:
    """For each tracklet of a test set, the images that the evaluation of the recipe reads."""
    return [
        tuple(tracklet.paths[frame] for frame in _test_frames(len(tracklet), index, recipe))
        for index, tracklet in enumerate(test.tracklets)
    ]


def check_images(images: Iterable[Sequence[str]], progress: Callable[[int, int], None] | None = None) -> None:
    """Decode the images of tracklets. Several processes share the work.

    Args:
        images: the image files of each tracklet.
        progress: called as `progress(tracklets_done, total_tracklets)`.

    Raises:
        DatasetError: an image cannot be read. The message names it.
    """
    rank, size = world()
    share = list(images)[rank::size]

    def read(paths: Sequence[str]) -> None:
        for path in paths:
            read_image(path)

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(read, share), start=1):
            if progress is not None:
                progress(done, len(share))


def rehearse_evaluation(
    model: nn.Module, datasets: Iterable[TrackletDataset], recipe: Recipe, device: torch.device | str
) -> None:
    """Evaluate one query and one match of each data set at each test length.

    Raises the errors that the evaluation after the training would raise.
    """
    pairs = []
    for each in datasets:
        query, match = Comparison(each).first_match()
        pairs.append(replace(each, query=[each.query[query]], gallery=[each.gallery[match]]))
    evaluate_sets(model, pairs, replace(recipe, train=replace(recipe.train, workers=0)), device=device)


def _test_frames(count: int, index: int, recipe: Recipe) -> Iterable[int]:
    """The frames that an evaluation reads from the tracklet with this index, which has `count` frames."""
    sampling = recipe.eval.sampling
    if sampling == "dense":
        return range(count)

    def clip(frames: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(recipe.seed, index))
        indices: list[int] = sample_clip(count, frames, sampling, generator).tolist()
        return indices

    clips = map(clip, recipe.eval.frames)
    return sorted(set(chain.from_iterable(clips)))
